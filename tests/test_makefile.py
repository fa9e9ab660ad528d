"""`make` with stand-ins for Python, pip, uv and JupyterLab: what they are told, and when an environment is made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = (
    "awk",
    "bash",
    "cat",
    "chmod",
    "cp",
    "env",
    "find",
    "grep",
    "ln",
    "mkdir",
    "realpath",
    "rm",
    "sed",
    "sha256sum",
    "sort",
)
PYTHON = """#!/usr/bin/env bash
{ printf '%s\\0' "$0" "$@"; printf '\\1'; env -0; printf '\\2'; } >>"$LOG"
case "$*" in
  "-c import sys; print"*) [ -e "$STUB" ] && echo "$STUB" || echo "$0" ;;
  "-c import sys"*) [ ! -e "$0.is-3.12" ] ;;
  --version) echo "Python 3.12.1" ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/jupyter" ;;
  "-m pip "*) [ -z "${FAILS-}" ] ;;
esac
"""
UV = PYTHON.replace(
    'case "$*" in', 'case "$*" in\n  "venv "*) mkdir -p "${@: -1}/bin"; cp "$STUB" "${@: -1}/bin/python" ;;'
)
MISLEADING = {
    "PIP_TARGET": "/elsewhere",
    "PIP_PREFIX": "/elsewhere",
    "PIP_NO_BINARY": ":all:",
    "PIP_CONSTRAINT": "/elsewhere.txt",
    "PIP_REQUIRE_HASHES": "1",
    "PIP_PYTHON": "/usr/bin/python3",
    "PYTHONHOME": "/elsewhere",
    "PYTHONPATH": "/elsewhere",
    "UV_SYSTEM_PYTHON": "1",
    "UV_EXCLUDE_NEWER": "2020-01-01",
    "UV_NO_BINARY": "1",
    "UV_REQUIRE_HASHES": "1",
    "VIRTUAL_ENV": "/elsewhere",
}
WHERE_PACKAGES_ARE = {"PIP_INDEX_URL": "https://mirror/simple", "UV_DEFAULT_INDEX": "https://mirror/simple"}


class Checkout:
    """A checkout of the Makefile and little else, and what its programs were told."""

    def __init__(self, folder):
        self.folder, self.programs = folder / "check \"out\" #1 $HOME '字'", folder / "programs"
        self.home, self.log = folder / "home", folder / "log"
        for path in (self.folder / "notebooks", self.folder / "params", self.programs, self.home):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", self.folder)
        for name in ("requirements.lock", "pyproject.toml"):
            (self.folder / name).write_text(f"{name}\n")
        for name in TOOLS:
            (self.programs / name).symlink_to(shutil.which(name))
        self.add("python3.11", PYTHON)
        self.add("id", "#!/usr/bin/env bash\necho 1000\n")

    def add(self, name, text):
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def make(self, *words, stdin=subprocess.DEVNULL, **variables):
        """What was run, as (program, arguments, environment), what was printed, and the status."""
        self.log.write_bytes(b"")
        own = {"PATH": self.programs, "HOME": self.home, "LOG": self.log, "STUB": self.programs / "python3.11"}
        done = subprocess.run(
            (shutil.which("make"), *words),
            cwd=self.folder,
            env={name: str(value) for name, value in (own | variables).items()},
            capture_output=True,
            stdin=stdin,
            text=True,
        )
        self.said, self.status = done.stdout + done.stderr, done.returncode
        self.ran = []
        for record in self.log.read_text().split("\2")[:-1]:
            words, variables = (part.split("\0")[:-1] for part in record.split("\1"))
            self.ran.append((words[0], words[1:], dict(line.partition("=")[::2] for line in variables)))
        return self

    @property
    def installed(self):
        """The commands that installed something."""
        return [(words, variables) for _, words, variables in self.ran if {"install", "sync"} & set(words)]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def made(checkout):
    """A checkout with its environment."""
    assert checkout.make("setup").status == 0, checkout.said
    assert checkout.installed
    return checkout


# --- when the environment is made ---


@pytest.mark.parametrize("change", ["nothing", "times", "settings"])
def test_an_environment_is_made_once(change, made):
    if change == "times":
        for path in (made.folder / "requirements.lock", made.folder / "pyproject.toml"):
            path.touch()
    variables = MISLEADING if change == "settings" else {}
    assert made.make("setup", **variables).status == 0, made.said
    assert made.installed == []
    assert made.said == ""


@pytest.mark.parametrize("change", ["lock", "project", "place", "python gone", "another python", "stamp of before"])
def test_what_an_environment_is_made_from_makes_it_again(change, made):
    left = made.folder / ".venv" / "left.py"
    left.touch()
    if change == "lock":
        (made.folder / "requirements.lock").write_text("another\n")
    elif change == "project":
        (made.folder / "pyproject.toml").write_text("another\n")
    elif change == "place":
        made.folder = made.folder.rename(made.folder.with_name("moved"))
    elif change == "python gone":
        (made.folder / ".venv" / "bin" / "python").unlink()
        (made.folder / ".venv" / "bin" / "python").symlink_to("/no/python3.11")
    elif change == "another python":
        (made.folder / ".venv" / "bin" / "python.is-3.12").touch()
    else:
        (made.folder / ".venv" / ".made-from").rename(made.folder / ".venv" / ".made-from-lock")
    assert made.make("setup").status == 0, made.said
    assert len(made.installed) == 2
    assert not list(made.folder.glob(".venv/**/left.py"))  # what an older lock file brought
    assert made.make("setup").installed == []


def test_an_environment_that_was_interrupted_is_made_again(checkout):
    assert checkout.make("setup", FAILS="1").status != 0
    assert len(checkout.make("setup").installed) == 2


def test_an_environment_elsewhere_stays_there(checkout, tmp_path):
    elsewhere = tmp_path / "a large disk"
    elsewhere.mkdir()
    (elsewhere / "left.py").touch()
    (checkout.folder / ".venv").symlink_to(elsewhere)
    assert checkout.make("setup").status == 0, checkout.said
    assert sorted(path.name for path in elsewhere.iterdir()) == [".made-from", "bin"]
    assert checkout.make("setup").installed == []


def test_an_environment_that_is_active_is_made_again(made):
    (made.folder / "requirements.lock").write_text("another\n")
    own = made.folder / ".venv" / "bin"
    shutil.copy(own / "python", own / "python3.11")
    outside = (made.programs / "python3.11").rename(made.programs / "python3")
    assert made.make("setup", PATH=f"{own}:{made.programs}", STUB=outside).status == 0, made.said
    assert len(made.installed) == 2


def test_operators_are_compiled_with_it_and_looked_for_where_it_is_made(checkout):
    for number in range(2):
        assert checkout.make("setup").status == 0, checkout.said
        program, told, _ = checkout.ran[-1]
        assert (program, told) == (
            ".venv/bin/python",
            ["-c", "from moviegen.device import compiled; compiled.prepare()"],
        )
        assert bool(checkout.installed) == (number == 0)


# --- with what it is made ---


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_packages_come_from_where_the_user_says_and_go_into_the_environment(installer, checkout):
    if installer == "uv":
        checkout.add("uv", UV)
    assert checkout.make("setup", **MISLEADING, **WHERE_PACKAGES_ARE).status == 0, checkout.said
    (lock, variables), (project, _) = checkout.installed
    assert {"--require-hashes", "requirements.lock"} <= set(lock)
    assert project[-4:] == ["--no-deps", "--no-build-isolation", "-e", "."]
    for words, variables in checkout.installed:
        assert (".venv/bin/python" in words) == (installer == "uv")
        assert not set(MISLEADING) & set(variables)
        assert variables["PIP_USER"] == "0"  # a pip.conf may say otherwise
        assert {name: variables[name] for name in WHERE_PACKAGES_ARE} == WHERE_PACKAGES_ARE


def test_python_3_11_is_taken_from_where_it_is(checkout):
    checkout.add("python3", PYTHON)
    (checkout.programs / "python3.is-3.12").touch()
    assert checkout.make("setup").status == 0, checkout.said
    (checkout.programs / "python3.11").rename(checkout.programs / "my python")
    (checkout.folder / "requirements.lock").write_text("another\n")
    refused = checkout.make("setup")
    assert refused.status != 0
    assert "python3 is Python 3.12.1; this needs Python 3.11: make PYTHON=" in refused.said
    assert (checkout.folder / ".venv" / "bin" / "python").exists()  # it is left as it was
    assert checkout.make("setup", f"PYTHON={checkout.programs / 'my python'}").status == 0, checkout.said


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize(
    ("target", "packages"),
    [("test-site", "tests/browser/requirements.txt"), ("demo", "requirements-demo.lock")],
)
def test_what_only_one_target_needs_is_added_once_when_it_is_asked_for(target, packages, installer, checkout):
    if installer == "uv":
        checkout.add("uv", UV)
    wanted = checkout.folder / packages
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.write_text("one==1\n")
    assert checkout.make("setup").status == 0, checkout.said
    assert not any(packages in words for words, _ in checkout.installed)
    for text, count in (("one==1\n", 1), ("one==1\n", 0), ("one==2\n", 1)):
        wanted.write_text(text)
        assert checkout.make(target, "SCALE=smoke", **MISLEADING).status == 0, checkout.said
        assert len(checkout.installed) == count
        for words, variables in checkout.installed:
            assert {"--require-hashes", "--no-deps", packages} <= set(words)
            assert (".venv/bin/python" in words) == (installer == "uv")
            assert not set(MISLEADING) & set(variables)
        program, told, _ = checkout.ran[-1]
        assert program == ".venv/bin/python"
        if target == "test-site":
            assert told[told.index("--site") + 1] == "outputs/smoke/html"
        else:
            assert told == ["-m", "moviegen", "demo", "--config", "smoke"]


def test_packages_that_could_not_be_added_are_added_the_next_time(made):
    wanted = made.folder / "tests" / "browser" / "requirements.txt"
    wanted.parent.mkdir(parents=True)
    wanted.write_text("driver==1\n")
    assert made.make("test-site", FAILS="1").status != 0
    assert len(made.make("test-site").installed) == 1
    assert made.status == 0, made.said


# --- what programs are told ---


@pytest.mark.parametrize(
    ("typed", "root"),
    [
        ("/clips #2 of $HOME", "/clips #2 of $HOME"),
        ("/a \"quoted\" 'name' 字", "/a \"quoted\" 'name' 字"),
        ("/clips/", "/clips"),
        ("clips", "{folder}/clips"),
        ("~/clips", "{home}/clips"),
        ("~clips", "{folder}/~clips"),
        ("", None),
    ],
)
@pytest.mark.parametrize("exported", [False, True])
def test_a_folder_of_clips_may_have_any_name(typed, root, exported, made):
    variables, words = ({"DATA": typed}, ()) if exported else ({}, (f"DATA={typed}",))
    assert made.make("report", *words, "ARGS=--seed 7", **variables).status == 0, made.said
    expected = root and root.replace("{folder}", str(made.folder)).replace("{home}", str(made.home))
    _, told, _ = made.ran[-1]
    named = ["--data.root", expected] if expected else []
    assert told == ["-m", "moviegen", "report", "--config", "tiny", *named, "--seed", "7"]


def test_nothing_is_fetched_where_that_is_asked_for(made):
    assert made.make("report", "ASSETS=none", "SCALE=smoke").status == 0, made.said
    _, told, _ = made.ran[-1]
    assert told == ["-m", "moviegen", "report", "--config", "smoke", "--assets", "none"]


@pytest.mark.parametrize("status", [0, 1])
def test_a_second_report_is_made_from_nothing_compared_and_shown(status, made):
    again = made.folder / "outputs" / "smoke" / "again"
    (again / "left").mkdir(parents=True)
    (made.folder / "outputs" / "scale-proof").mkdir()
    differs = PYTHON.replace('case "$*" in', f'case "$*" in\n  *" --against "*) exit {status} ;;')
    (made.folder / ".venv" / "bin" / "python").write_text(differs)
    assert (made.make("reproduce", "SCALE=smoke").status == 0) == (status == 0), made.said
    commands = [(told[2:], own.get("MOVIEGEN_OUTPUTS")) for _, told, own in made.ran if told[:2] == ["-m", "moviegen"]]
    report, verify = ["report", "--config", "smoke"], ["verify", "--config", "smoke", "--against", str(again)]
    assert commands == [(report, None), (report, str(again)), (verify, None), (report, None)]
    assert again.is_dir() and not (again / "left").exists()
    assert (again / "scale-proof").samefile(made.folder / "outputs" / "scale-proof")


def test_pretraining_starts_the_autoencoder_of_clips_from_the_weights_that_are_shipped(made):
    assert made.make("pretrain").status == 0, made.said
    commands = [told[2:] for _, told, _ in made.ran if told[:2] == ["-m", "moviegen"]]
    assert [command[0] for command in commands] == ["data", "tae", "ship", "tae", "ship", "report", "ship"]
    assert commands[3][-2:] == ["--tae.vae_checkpoint", "params/weights/image-autoencoder.safetensors"]


@pytest.mark.parametrize(("user", "allowed"), [(0, ["--allow-root"]), (1000, [])])
def test_lab_opens_the_notebooks_with_this_environments_python(user, allowed, made):
    made.add("id", f"#!/usr/bin/env bash\necho {user}\n")
    assert made.make("lab", "ARGS=--port 9999 --no-browser", JUPYTER_PATH="/the/users/own").status == 0, made.said
    program, told, environment = made.ran[-1]
    assert program == ".venv/bin/jupyter"
    assert told[0] == "lab"
    assert told[2:] == ["notebooks/01_overview.ipynb", *allowed, "--port", "9999", "--no-browser"]
    assert environment["JUPYTER_PATH"] == f"{made.folder}/.venv/share/jupyter:/the/users/own"


def test_lab_trusts_what_the_report_executed(made):
    executed = made.folder / "outputs" / "tiny" / "notebooks" / "data.ipynb"
    executed.parent.mkdir(parents=True)
    executed.touch()
    assert made.make("lab").status == 0, made.said
    (program, told, _), (_, after, _) = made.ran[-2:]
    assert (program, told) == (".venv/bin/jupyter", ["trust", "outputs/tiny/notebooks/data.ipynb"])
    assert after[0] == "lab"


# --- what is removed ---


def filled(checkout, *files):
    for file in ("tiny/html/index.html", *files):
        path = checkout.folder / "outputs" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return checkout.folder / "outputs"


@pytest.mark.parametrize("words", [(), ("FORCE=1",)])
def test_what_can_be_made_again_is_removed_unasked(words, checkout):
    outputs = filled(checkout)
    assert checkout.make("clean", *words).status == 0, checkout.said
    assert not outputs.exists()
    assert checkout.make("clean").status == 0, checkout.said  # there is nothing


@pytest.mark.parametrize(
    "file", ["5B/runs/stage1-ab/checkpoints/step-5/state.json", "5B/runs/stage1-ab/dit.safetensors"]
)
def test_what_training_left_is_not_removed_where_nobody_can_be_asked(file, checkout):
    outputs = filled(checkout, file)
    assert checkout.make("clean").status != 0
    assert (outputs / file).is_file() and (outputs / "tiny/html/index.html").is_file()
    assert "outputs/5B/runs/stage1-ab/" in checkout.said
    assert "nobody is there to ask: make clean FORCE=1" in checkout.said
    assert checkout.make("clean", "FORCE=1").status == 0, checkout.said
    assert not outputs.exists()


@pytest.mark.parametrize(("answer", "is_removed"), [("yes", True), ("y", False), ("", False)])
def test_who_sits_at_a_terminal_is_asked(answer, is_removed, checkout):
    outputs = filled(checkout, "5B/runs/stage1-ab/checkpoints/step-5/state.json")
    terminal, other_end = os.openpty()
    os.write(terminal, f"{answer}\n".encode())
    checkout.make("clean", stdin=other_end)
    os.close(terminal)
    os.close(other_end)
    assert (checkout.status == 0) == is_removed == (not outputs.exists()), checkout.said


def test_python_is_not_misled(made):
    asked = {"PYTHONHOME": "/elsewhere", "PYTHONSAFEPATH": "1", "PYTHONPATH": "/cann/python"}
    _, _, environment = made.make("plan", **asked).make("report", **asked).ran[-1]
    assert {name for name in asked if name in environment} == {"PYTHONPATH"}  # where CANN has its own


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["--dataset.size", "[256, 256]"]),
        (["ARGS=--seed 3"], ["--dataset.size", "[256, 256]", "--seed", "3"]),
        (["ARGS=--dataset.size [64,64] --seed 3"], ["--dataset.size", "[64,64]", "--seed", "3"]),
    ],
)
def test_a_size_of_ones_own_takes_the_place_of_the_steps(made, words, told):
    """Given twice it would be refused."""
    assert made.make("step-1B", *words).status == 0, made.said
    steps = [told for _, told, _ in made.ran if "step" in told]
    assert [words[words.index("step") + 1 :] for words in steps] == [
        ["--config", "1B", *told],
        ["--config", "5B", "--forward", *told],
    ]
