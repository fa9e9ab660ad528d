"""`python -m moviegen` given bad input: a clear message, exit status 2, no traceback, nothing half-written."""

import errno
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from moviegen import __main__
from moviegen.data.videos import write_video

ROOT = Path(__file__).parent.parent


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def clips(tmp_path):
    """Makes a mixkit folder of the given files, all of them listed in its CSV."""

    def make(**files):
        folder = tmp_path / "clips"
        (folder / "mixkit").mkdir(parents=True)
        for name, content in files.items():
            path = folder / "mixkit" / f"{name}.mp4"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                write_video(path, content, 25)
        rows = "".join(f"{name}.mp4,a {name}\n" for name in files)
        (folder / "video_caption_train.csv").write_text("video,caption\n" + rows)
        return folder

    return make


@pytest.fixture
def moviegen(outputs):
    """Runs the command line, its outputs in a folder of the test's own."""

    def call(*arguments, scale="smoke", **environment):
        return subprocess.run(
            (sys.executable, "-m", "moviegen", *arguments, *(("--config", scale) if scale else ())),
            cwd=ROOT,
            env=os.environ | {"MOVIEGEN_OUTPUTS": str(outputs)} | environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )

    return call


def assert_refused(done, *words):
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def assert_nothing_half_written(outputs, *programs):
    """Failed manifests of the programs that were begun, and what was hashed and measured: no result, nothing half."""
    memories = {outputs / "hashes.json", outputs / "measured.jsonl"}
    files = [path for path in outputs.rglob("*") if path.is_file() and path not in memories]
    assert {path.name for path in files} <= {"manifest.json", "params.yaml", ".lock", "metrics.jsonl"}
    folders = sorted({path.parent for path in files})
    assert [folder.name.rsplit("-", 1)[0] for folder in folders] == list(programs)
    for folder in folders:
        assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"


# --- options ---

FILE_OPTIONS = {
    ("tae", "encode"): ("config", "weights", "input", "output"),
    ("text", "encode"): ("config", "captions", "output"),
    ("sample",): ("config", "prompts", "output", "dit", "tae"),
}


@pytest.mark.parametrize(("verb", "names"), FILE_OPTIONS.items(), ids=" ".join)
def test_options_of_files_know_the_home_folder(tmp_path, monkeypatch, verb, names):
    """A shell leaves the tilde of `--output=~/x` and of a quoted one as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = __main__.parser().parse_args([*verb, *(f"--{name}=~/{name}" for name in names)])
    wanted = {name: f"{tmp_path}/{name}" for name in names}
    if "input" in names:  # of which there may be several
        wanted["input"] = [wanted["input"]]
    assert {name: getattr(options, name) for name in names} == wanted


def test_other_options_are_taken_as_they_are(monkeypatch):
    options = __main__.parser().parse_args(["sample", "--prompts", "p.txt", "--schedule", "~", "--size", "96x96"])
    assert (options.schedule, options.size, options.output, options.config) == ("~", "96x96", None, "tiny")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--stage", "1", "--stage", "2"),
        ("report", "--config", "tiny", "--config", "5B"),
        ("sample", "--prompts", "a", "--prompts=b"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        __main__.parser().parse_known_args(words)
    first, second = words[2], words[-1].rpartition("=")[2]
    assert f"given twice, as {first} and as {second}: keep one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "tae export --weights none.safetensors --output {}/vae.safetensors",
        "text encode --captions {captions} --output {}",
        "sample --prompts {captions} --dit {captions} --tae {captions} --output {}",
    ],
)
@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/none"])
def test_an_output_that_cannot_be_written_is_named_before_anything_is_computed(
    words, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr("moviegen.device.start", lambda *_: pytest.fail("it was begun"))
    (tmp_path / "captions.txt").write_text("a dog\n")
    command = words.format(place, captions=tmp_path / "captions.txt").split()
    assert __main__.main([*command, "--config", "smoke"]) == 2
    told = capsys.readouterr().err
    assert f"error: cannot write into {place}, where results go" in told and "have --output name a folder" in told


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_of_another_user_is_named(number, tmp_path, monkeypatch, capsys):
    """As root left it in a container, below a folder that can be written to."""

    def write(params, options):
        raise OSError(number, os.strerror(number), str(tmp_path / "manifest.json"))

    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("moviegen.programs.plan.main", write)
    assert __main__.main(["plan", "--config", "smoke"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'manifest.json'}: {os.strerror(number)}: it is another user's")


def test_another_error_of_the_system_is_not_taken_for_that(monkeypatch):
    def write(params, options):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    monkeypatch.setattr("moviegen.programs.plan.main", write)
    with pytest.raises(FileNotFoundError):
        __main__.main(["plan", "--config", "smoke"])


# --- parameters ---


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("--train.stepz", "3"), "'train.stepz'; did you mean 'train.steps'?"),
        (("sample.guidence=3",), "'sample.guidence'; did you mean 'sample.guidance'?"),
        (("--stages.2.train.stepz=3",), "'stages.2.train.stepz'; did you mean 'train.steps'?"),
    ],
)
def test_unknown_parameter(moviegen, outputs, words, nearest):
    assert_refused(moviegen("data", "index", *words), "error: unknown parameter", nearest)
    assert not outputs.exists()


def test_unknown_parameter_in_a_file(moviegen, outputs, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text((ROOT / "params" / "smoke.yaml").read_text().replace("guidance:", "guidence:"))
    assert_refused(moviegen("plan", scale=str(path)), str(path), "did you mean 'sample.guidance'?")
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--train.steps", "0"), "train.steps = 0"),
        (("--train.steps",), "--train.steps has no value"),
        (("train.steps", "3"), "'train.steps' is not a parameter"),
        (("--dataset.size", "[50,80]"), "50x80 is not divisible by 16: use 48x80"),
    ],
)
def test_wrong_value(moviegen, outputs, words, expected):
    assert_refused(moviegen("data", "index", *words), expected)
    assert not outputs.exists()


def test_value_that_is_not_yaml(moviegen):
    assert_refused(moviegen("plan", "--sample.size", "[96,"), "sample.size")


def test_unknown_scale(moviegen):
    assert_refused(moviegen("plan", scale="huge"), "huge.yaml", "1B, 30B, 5B, pretrain, small, smoke, tiny")


@pytest.mark.parametrize("stage", ["0", "4", "two"])
def test_unknown_stage(moviegen, outputs, stage):
    assert_refused(moviegen("train", "--stage", stage), "--stage", stage)
    assert not outputs.exists()


@pytest.mark.parametrize("words", [("paint",), ("tae", "sing"), ("train",), ()])
def test_unknown_or_missing_verb(moviegen, words):
    assert_refused(moviegen(*words, scale=None), "usage: python -m moviegen")


def test_plan_prints_a_line_for_each_program(moviegen, outputs):
    done = moviegen("plan")
    assert done.returncode == 0
    lines = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert all(lines.count(name) == 2 for name in ("tae-mixkit", "stage1", "stage2", "stage3", "sample"))
    assert not outputs.exists()


# --- data ---


def test_missing_data_folder(moviegen, outputs, tmp_path):
    done = moviegen("data", "index", "--data.root", str(tmp_path / "nowhere"))
    assert_refused(done, f"data.root {tmp_path / 'nowhere'} is not a folder")
    assert_nothing_half_written(outputs, "data")


@pytest.mark.parametrize("text", ["", "video,caption\n"])
def test_empty_csv(moviegen, outputs, clips, text):
    folder = clips(a=b"not read")
    (folder / "video_caption_train.csv").write_text(text)
    done = moviegen("data", "index", "--data.root", str(folder))
    assert_nothing_half_written(outputs, "data")
    assert_refused(done, "video_caption_train.csv is empty")


def test_folder_without_videos(moviegen, outputs, tmp_path):
    (tmp_path / "none").mkdir()
    done = moviegen("data", "index", "--data.root", str(tmp_path / "none"))
    assert_nothing_half_written(outputs, "data")
    assert_refused(done, "no videos found")


def test_folder_of_one_clip(moviegen, outputs, clips):
    folder = clips(only=np.zeros((20, 32, 32, 3), np.uint8))
    done = moviegen("data", "index", "--data.root", str(folder))
    assert done.returncode == 0 and "note: only.mp4 is the only clip" in done.stderr


def test_folder_of_broken_videos(moviegen, outputs, clips):
    folder = clips(noise=bytes(range(256)) * 20, empty=b"")
    done = moviegen("data", "index", "--data.root", str(folder))
    assert_refused(done, "none of 2 clips can be used", "noise.mp4", "empty.mp4")
    assert_nothing_half_written(outputs, "data")


def test_folder_of_videos_too_short(moviegen, outputs, clips):
    short = np.zeros((9, 32, 32, 3), np.uint8)
    done = moviegen("data", "index", "--data.root", str(clips(a=short, b=short)))
    assert_refused(done, "none of 2 clips can be used (at least 16 frames wanted)", "9 frames, the recipe needs 16")
    assert_nothing_half_written(outputs, "data")


def test_some_bad_videos_are_set_aside(moviegen, outputs, clips):
    good, short = (np.zeros((frames, 32, 32, 3), np.uint8) for frames in (20, 9))
    folder = clips(a=good, b=good, c=good, short=short, noise=bytes(range(256)) * 20)
    done = moviegen("data", "index", "--data.root", str(folder))
    assert done.returncode == 0, done.stderr
    (run,) = (outputs / "smoke" / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["quarantined"] == 2
    assert sum(summary["mixkit"].values()) == 3
    set_aside = (run / "quarantine.csv").read_text()
    assert "short.mp4" in set_aside
    assert "noise.mp4" in set_aside
    assert "a.mp4" not in set_aside
    assert json.loads((run / "manifest.json").read_text())["status"] == "complete"
    assert not [path for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]


FULL = """
import os, sys
from moviegen.__main__ import main
def full(_):
    raise OSError(28, "No space left on device")
os.fsync = full
sys.exit(main(["count", "--config", "smoke"]))
"""


def test_a_full_disk_is_named(outputs):
    environment = os.environ | {"MOVIEGEN_OUTPUTS": str(outputs)}
    done = subprocess.run((sys.executable, "-c", FULL), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert_refused(done, f"cannot write into {outputs / 'smoke'} (No space left on device)", "make room there")


def test_another_error_of_the_system_is_shown_as_it_is(outputs):
    environment = os.environ | {"MOVIEGEN_OUTPUTS": str(outputs)}
    broken = FULL.replace("28", "5").replace("No space left on device", "Input/output error")
    done = subprocess.run((sys.executable, "-c", broken), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError: [Errno 5] Input/output error" in done.stderr


@pytest.mark.parametrize(
    ("verb", "place"), [("report", "/proc/none"), ("data index", "a file"), ("train --stage 1", "a link to nothing")]
)
def test_outputs_that_cannot_be_written_are_named_before_anything_runs(moviegen, outputs, tmp_path, verb, place):
    if place == "a file":
        outputs.write_text("")
    elif place == "a link to nothing":
        outputs.symlink_to(tmp_path / "gone" / "disk")
        (tmp_path / "gone").write_text("")
    else:
        outputs = Path(place)
    done = moviegen(*verb.split(), MOVIEGEN_OUTPUTS=str(outputs))
    assert_refused(done, f"cannot write into {outputs / 'smoke'}", "have MOVIEGEN_OUTPUTS name a folder")
    assert done.stdout == ""


def test_what_only_prints_needs_no_outputs(moviegen):
    assert moviegen("plan", MOVIEGEN_OUTPUTS="/proc/none").returncode == 0


# --- the environment ---


@pytest.mark.parametrize("encoding", ["", "ascii", "latin-1"])
def test_a_word_that_the_locale_does_not_know_ends_no_program(moviegen, tmp_path, encoding):
    params = tmp_path / "mine.yaml"
    params.write_text(f"extends: {ROOT / 'params' / 'smoke.yaml'}\nscale: café_字\n", encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    done = moviegen("plan", scale=str(params), **locale)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^caf(.*?) on a CPU", done.stdout, re.M) == [
        "\ufffd_\\u5b57" if encoding == "latin-1" else "\\xe9_\\u5b57"  # no UTF-8, or ASCII
    ]


def test_a_program_started_for_a_run_that_no_longer_follows_says_so(moviegen, outputs):
    done = moviegen("data", "index", MOVIEGEN_RUN="data-00000000")
    assert_refused(done, "data-00000000 was asked for", "Start again what asked for it; nothing is lost")
    assert not list(outputs.rglob("manifest.json"))


def test_assets_without_a_network_say_so_and_leave_nothing(moviegen, outputs):
    done = moviegen("data", "assets", PIP_INDEX_URL="http://127.0.0.1:9/simple/")
    assert_refused(done, "moviepy-2.2.1.tar.gz cannot be fetched (ConnectionError)", "or do without the film")
    assert {path.name for path in outputs.rglob("*") if path.is_file()} <= {".lock"}


# --- order ---


ALONE = ("--launch.worker_num", "1", "--launch.local_worker_num", "1", "--stages.3.train.sequence_parallel.shards", "1")


def test_stage_before_its_data_names_the_command(moviegen, outputs):
    done = moviegen("train", "--stage", "1", *ALONE)
    assert_refused(done, "stage1 needs data-", "`python -m moviegen data index --config")
    assert_nothing_half_written(outputs, "stage1")


def test_a_stage_with_other_workers_than_its_recipes_names_a_command_that_has_them(moviegen, outputs):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = moviegen("train", "--stage", "1", "--launch.master_port", str(port))
    assert_refused(done, "stage1 asks for 2 workers and was started with 1", f"`{' '.join(ALONE)}`")
    assert [path.name for path in outputs.rglob("*") if path.is_file()] == ["params.yaml"]
    msrun = shlex.split(done.stderr.split("`")[1])
    assert msrun[:4] == ["msrun", f"--master_port={port}", "--worker_num=2", "--local_worker_num=2"]
    scripts = str(Path(sys.executable).parent)
    environment = {"MOVIEGEN_OUTPUTS": str(outputs), "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}
    guarded = (sys.executable, "-m", "moviegen.launch.guard", *msrun)  # msrun leaves a `tail` for each worker
    options = {"cwd": ROOT, "env": os.environ | environment, "stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(guarded, **options) as process:
        try:
            said, deadline = "", time.monotonic() + 60
            while "error: " not in said and time.monotonic() < deadline:
                time.sleep(0.1)
                said = "".join(log.read_text() for log in outputs.rglob("worker_0.log"))
        finally:
            process.stdin.close()  # by itself it would wait for its scheduler
    assert "error: stage1 needs data-" in said  # they were let in


def test_text_before_its_data_names_the_command(moviegen, outputs):
    assert_refused(moviegen("text", "encode"), "text needs data-", "`python -m moviegen data index --config")
    assert_nothing_half_written(outputs, "text")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--train.settings.zero_stage", "4"), ("train.settings.zero_stage = 4", "0, 1, 2 or 3")),
        (("--train.sequence_parallel.shards", "3"), ("shards 3 does not divide", "4 attention heads")),
        (("--train.sequence_parallel.shards", "4"), ("worker_num 2 is not a multiple", "shards 4")),
    ],
)
def test_recipes_that_cannot_be_are_refused_before_anything_is_written(words, messages, moviegen, outputs):
    assert_refused(moviegen("train", "--stage", "1", *words), *messages)
    assert not outputs.exists()
