"""A library of operators is made once for this processor, whatever is wrong on the way; which form computes is said."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, device
from moviegen.__main__ import main
from moviegen.device import compiled, compiler, limits
from moviegen.device.compiler import NotCompiledError

ROOT = Path(__file__).parents[2]
SMALL = """
#include <cstdint>
#define EXPORTED extern "C" [[gnu::visibility("default")]] int
EXPORTED moviegen_check() { return %s; }
EXPORTED twice(int, void **data, int *, int64_t **shapes, const char **, void *, void *) {
    for (int64_t i = 0; i < shapes[0][0]; i++) ((float *)data[1])[i] = 2 * ((float *)data[0])[i];
    return 0;
}
"""
V3_FLAGS = "fpu avx avx2 fma f16c bmi1 bmi2 abm movbe"
V4_FLAGS = f"{V3_FLAGS} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of its own for libraries of a small source, and nothing chosen."""
    place = Place(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "prefix", str(place.prefix))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.cache))
    monkeypatch.delenv(compiled.CHOICE, raising=False)
    monkeypatch.setattr(compiler, "SOURCE", tmp_path / "operators.cpp")
    place.source(SMALL % 14)
    place.compiles_with('exec c++ "$@"')
    compiled.forget()
    yield place
    compiled.forget()


class Place:
    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.prefix, self.cache, self.log = folder / 'pre"fix 字', folder / "cache", folder / "log"

    @property
    def libraries(self):
        """Where some lie, hidden and half-made ones too."""
        names = (path for path in self.folder.rglob("*operators-*"))
        return sorted(str(path.relative_to(self.folder)) for path in names)

    @property
    def compilations(self):
        """How often the compiler was asked for more than its version."""
        return self.log.read_text().count("-shared") if self.log.exists() else 0

    def source(self, text):
        (self.folder / "operators.cpp").write_text(text)

    def compiles_with(self, script, version="c++ 1.0"):
        path = self.folder / "compiler"
        path.write_text(
            f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{version}"; exit 0; }}\necho "$@" >>"{self.log}"\n{script}\n'
        )
        path.chmod(0o755)
        self.monkeypatch.setenv("CXX", str(path))

    def has_no_compiler(self):
        self.monkeypatch.delenv("CXX")
        self.monkeypatch.setenv("PATH", str(self.folder / "nothing"))

    def has_processor(self, flags, machine="x86_64"):
        (self.folder / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
        self.monkeypatch.setattr(compiler, "CPUINFO", self.folder / "cpuinfo")
        self.monkeypatch.setattr(compiler.platform, "machine", lambda: machine)


def computes(path):
    return ctypes.CDLL(str(path)).moviegen_check() == 14


# --- made once ---


def test_a_library_is_made_once_and_found_again(place):
    path = compiler.library()
    assert path.parent == place.prefix / "share" / "moviegen"
    assert computes(path)
    assert compiler.library() == path
    assert (place.compilations, len(place.libraries)) == (1, 1)


def test_its_functions_are_operators_of_mindspore_wherever_it_lies(place):
    twice = compiled.operator("twice", lambda x: x)
    assert twice(ms.Tensor([1.0, 2.5], ms.float32)).asnumpy().tolist() == [2.0, 5.0]
    assert str(place.prefix) in twice.func


@pytest.mark.parametrize("change", ["source", "compiler", "its options", "ours"])
def test_what_a_library_is_made_from_makes_another(place, monkeypatch, change):
    first = compiler.library()
    if change == "source":
        place.source(SMALL % 14 + "// a remark\n")
    elif change == "compiler":
        place.compiles_with('exec c++ "$@"', version="c++ 1.1")
    elif change == "its options":
        monkeypatch.setenv("CXX", f"{os.environ['CXX']} -g")
    else:
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g"))
    assert compiler.library() != first
    assert place.compilations == 2


def test_two_at_once_make_one(place):
    place.compiles_with('sleep 1; exec c++ "$@"')
    program = (
        f"import sys; from pathlib import Path; from moviegen.device import compiler\n"
        f"sys.prefix, compiler.SOURCE = {str(place.prefix)!r}, Path({str(compiler.SOURCE)!r})\n"
        f"print(compiler.library())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in started]
    assert said[0] == said[1] == str(compiler.library())
    assert (place.compilations, len(place.libraries)) == (1, 1)


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError()])
def test_a_file_system_without_locks_is_enough(place, monkeypatch, error):
    def refuse(self, *arguments, **options):
        raise error

    monkeypatch.setattr(compiler.filelock.FileLock, "acquire", refuse)
    assert computes(compiler.library())


# --- damaged ---


@pytest.mark.parametrize("damage", ["cut", "cut to a page", "empty", "changed", "longer", "text", "folder"])
def test_a_damaged_library_is_made_again(place, damage):
    path = compiler.library()
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.unlink()
    if damage == "folder":
        path.mkdir()
        assert place.cache in compiler.library().parents
        return
    contents = {"cut": whole[:-100], "cut to a page": whole[:4096], "empty": b"", "changed": bytes(changed),
                "longer": whole + b"\0", "text": b"hello\n" * 100}  # fmt: skip
    path.write_bytes(contents[damage])
    assert compiler.library() == path
    assert path.read_bytes() == whole
    assert len(place.libraries) == 1


def test_one_that_needs_what_is_not_here_is_made_again(place):
    path = compiler.library()
    other = place.folder / "other.so"
    place.source('int missing(); extern "C" int moviegen_check() { return missing(); }')
    subprocess.run(["c++", "-shared", "-fPIC", "-Wl,-z,now", "-o", other, compiler.SOURCE], check=True)
    place.source(SMALL % 14)
    compiler._seal(other)
    path.unlink()
    other.rename(path)
    assert computes(compiler.library())


# --- what is wrong with the compiler ---


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "In file x:" >&2; echo "x.cpp:3: error: no such thing" >&2; exit 1', "x.cpp:3: error: no such thing"),
        ("exit 1", "says nothing"),
        ("kill -9 $$", "says nothing"),
        ('while [ "$1" != -o ]; do shift; done; echo garbage >"$2"', "invalid ELF header|file too short"),
        ("exit 0", "file too short"),
        ('while [ "$1" != -o ]; do shift; done; rm "$2"', "cannot open shared object"),
    ],
)
def test_a_compiler_that_fails_is_named_with_what_it_says(place, script, words):
    place.compiles_with(script)
    with pytest.raises(NotCompiledError, match=words) as error:
        compiler.library()
    assert "\n" not in str(error.value)
    assert "CXX" in str(error.value)
    assert place.libraries == []
    assert compiled.form().line.startswith("operators: MindSpore's own: ")


@pytest.mark.parametrize(
    ("check", "words"),
    [("13", "computes wrong"), ("(__builtin_trap(), 14)", "SIGILL|SIGTRAP"), ("*(volatile int *)8", "SIGSEGV")],
)
def test_what_does_not_run_here_ends_its_own_process_alone(place, check, words):
    place.source(SMALL % check)
    with pytest.raises(NotCompiledError, match=words):
        compiler.library()
    assert place.libraries == []


def test_what_does_not_come_to_an_end_is_ended(place, monkeypatch):
    monkeypatch.setattr(compiler, "CHECK_SECONDS", 1)
    place.source(SMALL.replace("return %s", "for (volatile int i = 0;; i++); return %s") % 14)
    with pytest.raises(NotCompiledError, match="does not come to an end"):
        compiler.library()


def test_without_a_compiler_it_is_said_what_to_install(place):
    place.has_no_compiler()
    with pytest.raises(NotCompiledError, match=r"no C\+\+ compiler found: install one .*g\+\+"):
        compiler.library()


def test_a_library_outlives_its_compiler(place):
    path = compiler.library()
    place.has_no_compiler()
    assert compiler.library() == path


def test_another_compiler_is_found_where_cxx_names_none(place, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert computes(compiler.library())
    assert place.compilations == 0


def test_cxx_may_hold_options(place, monkeypatch):
    monkeypatch.setenv("CXX", f"{shutil.which('env')} A=1 {os.environ['CXX']}")
    assert computes(compiler.library())
    assert place.compilations == 1


# --- where it lies ---


def blocked(folder):
    """Nothing can be written there, by root neither."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file")


def test_where_the_environment_cannot_be_written_the_users_folder_is_used(place):
    blocked(place.prefix)
    path = compiler.library()
    assert path.parent == place.cache / "moviegen"
    assert computes(path)
    assert compiler.library() == path
    assert place.compilations == 1


def test_one_that_lies_in_the_users_folder_already_is_used(place):
    blocked(place.prefix)
    path = compiler.library()
    place.prefix.unlink()
    assert compiler.library() == path


@pytest.mark.parametrize("cache", ["blocked", "/proc/none", "relative", "a:colon"])
def test_where_nothing_can_be_written_it_is_said(place, monkeypatch, cache):
    blocked(place.prefix)
    blocked(place.cache)
    if cache != "blocked":
        monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / cache) if ":" in cache else cache)
    with pytest.raises(NotCompiledError, match=r"written nowhere .* set XDG_CACHE_HOME"):
        compiler.library()
    assert compiled.form().line.startswith("operators: MindSpore's own: a library can be written nowhere")


# --- processors ---


@pytest.mark.parametrize(
    ("flags", "machine", "level", "some"),
    [
        (V4_FLAGS, "x86_64", "x86-64-v4", {"-mavx512f", "-mavx2", "-mprefer-vector-width=512"}),
        (V4_FLAGS.replace("avx512vl", ""), "x86_64", "x86-64-v3", {"-mavx2", "-mfma"}),
        (V3_FLAGS, "x86_64", "x86-64-v3", {"-mavx2", "-mfma"}),
        (V3_FLAGS.replace(" fma", ""), "x86_64", "x86-64", set()),
        ("", "x86_64", "x86-64", set()),
        ("fp asimd sve", "aarch64", "aarch64", set()),
    ],
)
def test_a_level_is_what_the_processor_has_all_of(place, flags, machine, level, some):
    place.has_processor(flags, machine)
    found = compiler.processor()
    assert found.level == level
    assert some <= set(found.options)
    assert bool(some) == bool(found.options)
    assert level in compiler._stem(found)


def test_a_machine_without_cpuinfo_has_the_least(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(compiler, "CPUINFO", tmp_path / "none")
    assert compiler.processor() == compiler.Target("x86-64", ())


def test_another_processor_has_a_library_of_its_own(place):
    place.has_processor("fpu")
    first = compiler.library()
    place.has_processor("fp asimd", "aarch64")
    second = compiler.library()
    assert first != second
    assert (place.compilations, len(place.libraries)) == (2, 2)
    place.has_no_compiler()
    assert compiler.library() == second
    place.has_processor(V3_FLAGS)
    with pytest.raises(NotCompiledError):  # neither is taken
        compiler.library()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="others have one level")
@pytest.mark.parametrize("level", compiler.LEVELS)
def test_the_operators_compile_for_every_level(place, monkeypatch, level):
    here = compiler.processor()
    if here.level not in compiler.LEVELS or list(compiler.LEVELS).index(here.level) > list(compiler.LEVELS).index(
        level
    ):
        pytest.skip(f"this processor ({here.level}) cannot run it")
    place.has_processor(" ".join(compiler.LEVELS[level]))
    monkeypatch.setattr(compiler, "SOURCE", Path(compiler.__file__).with_name("operators.cpp"))
    assert level in compiler.library().name


# --- which form computes ---


@pytest.mark.parametrize(
    ("operators", "recipe", "variable", "name"),
    [
        ("auto", "CPU", "", "compiled"),
        ("auto", "CPU", "compiled", "compiled"),
        ("auto", "CPU", "mindspore", "mindspore"),
        ("mindspore", "CPU", "compiled", "mindspore"),
        ("compiled", "CPU", "mindspore", "compiled"),
        ("auto", "Ascend", "", "mindspore"),
        ("auto", "Ascend", "compiled", "mindspore"),
        ("compiled", "Ascend", "", "compiled"),
    ],
)
def test_the_form_is_the_recipes_then_the_variables(monkeypatch, operators, recipe, variable, name):
    monkeypatch.setenv(compiled.CHOICE, variable)
    assert compiled.form(operators, recipe).name == name
    monkeypatch.setattr(device, "target", lambda: "Ascend")
    assert compiled.form(operators, recipe).name == "mindspore"


def test_it_is_found_out_once_in_a_process(place):
    place.compiles_with("exit 1")
    assert [compiled.is_compiled() for _ in range(3)] == [False] * 3
    assert place.compilations == 1


def test_compiled_ones_that_cannot_be_had_are_an_error(place, monkeypatch, capsys):
    place.has_no_compiler()
    with pytest.raises(NotCompiledError, match=r"launch.operators is compiled, and no C\+\+ compiler found: install"):
        compiled.form("compiled")
    monkeypatch.setenv(compiled.CHOICE, "compiled")
    with pytest.raises(NotCompiledError, match="MOVIEGEN_OPERATORS is compiled"):
        compiled.is_compiled()
    assert main(["plan", "--config", "smoke", "--launch.operators", "compiled"]) == 2
    assert "error: launch.operators is compiled" in capsys.readouterr().err


def test_a_form_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv(compiled.CHOICE, "fast")
    with pytest.raises(NotCompiledError, match="MOVIEGEN_OPERATORS is 'fast': write compiled or mindspore"):
        compiled.is_compiled()


@pytest.mark.parametrize("operators", ["compiled", "mindspore"])
def test_what_is_chosen_holds_here_and_in_what_is_started(operators):
    device.choose("CPU", operators)
    assert os.environ[compiled.CHOICE] == compiled.current().name == operators
    assert compiled.is_compiled() == (operators == "compiled")
    assert (compiled.library() is None) == (operators == "mindspore")


def test_what_was_not_to_be_had_is_not_tried_again_by_what_is_started(place):
    place.compiles_with("exit 1")
    chosen = device.compiled.choose("auto", "CPU")
    assert "failed" in chosen.why
    child = "from moviegen.device import compiled; print(compiled.form().name)"
    done = subprocess.run([sys.executable, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("mindspore\n", "")
    assert place.compilations == 1


def test_setup_says_only_what_is_new(place, capsys):
    compiled.prepare()
    captured = capsys.readouterr()
    assert captured.err.startswith("compiling operators for ")
    assert len(captured.err.splitlines()) == 1
    compiled.forget()
    compiled.prepare()
    place.has_no_compiler()
    place.source(SMALL % "7 + 7")
    compiled.forget()
    compiled.prepare()
    captured = capsys.readouterr()
    assert captured.out.startswith("operators: MindSpore's own: no C++ compiler found")
    assert len(captured.out.splitlines()) == 1
    assert captured.err == ""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "operators: compiled ({level}, 3 threads)\n"),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "RANK_ID": "0"}, "operators: compiled ({level}, 1 thread)\n"),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "RANK_ID": "1"}, ""),
        ({"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "2", "RANK_ID": "0"}, ""),
        ({"MOVIEGEN_OPERATORS": "mindspore"}, "operators: MindSpore's own: MOVIEGEN_OPERATORS says so\n"),
    ],
)
def test_a_program_that_computes_says_which_form_does(monkeypatch, capsys, variables, said):
    monkeypatch.setattr(limits, "cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(compiled.THREADS, "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    device.start(0, config.load("smoke").launch)
    captured = capsys.readouterr().err.splitlines(keepends=True)
    assert [line for line in captured if line.startswith("operators")] == [
        line for line in [said.format(level=compiler.processor().level)] if line
    ]
    np.testing.assert_equal(int(os.environ[compiled.THREADS]), 1 if "MS_ROLE" in variables else 3)


def test_a_wheel_holds_the_source(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "moviegen", tmp_path / "moviegen", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    wheel = tmp_path / "dist" / done.stdout.splitlines()[-1]
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True)
    assert "moviegen/device/operators.cpp" in listed.stdout
    for header in (ROOT / "moviegen/device/operators").iterdir():
        assert f"moviegen/device/operators/{header.name}" in listed.stdout
