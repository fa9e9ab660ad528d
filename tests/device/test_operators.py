"""The library of operators as a whole: any number of threads, no access beyond a tensor, every level."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moviegen.device import compiled, compiler

DRIVER = Path(__file__).with_name("operators_driver.py")
SANITIZED = ("-O1", "-std=c++20", "-fopenmp-simd", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
             "-shared", "-fPIC", "-pthread")  # fmt: skip

pytestmark = pytest.mark.skipif(not compiled.is_compiled(), reason="MindSpore's own operators are chosen")


@pytest.fixture
def drive(tmp_path):
    """All results of a library in a process with some variables."""

    def drive(library, **variables):
        file = tmp_path / "results.npz"
        command = (sys.executable, str(DRIVER), str(library), str(file))
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        with np.load(file) as results:
            return dict(results)

    return drive


def make(library, *options):
    """Compiles the operators with other options."""
    command = compiler.find_compiler().command
    subprocess.run((*command, *options, str(compiler.SOURCE), "-o", str(library)), check=True)
    return library


def levels_below():
    """Levels of the processor's instructions that it has beside its own."""
    names = list(compiler.LEVELS)
    own = compiler.processor().level
    return names[names.index(own) + 1 :] if own in names else []


def test_results_are_the_same_bits_with_one_thread_two_three_and_again(drive):
    first, *others = (drive(compiled.library(), MOVIEGEN_THREADS=threads) for threads in ("1", "2", "3", "3"))
    for other in others:
        assert first.keys() == other.keys()
        assert [name for name in first if first[name].tobytes() != other[name].tobytes()] == []


@pytest.mark.parametrize("level", levels_below())
def test_lower_levels_compute_the_same(drive, tmp_path, level):
    library = make(tmp_path / "operators.so", *compiler.FLAGS, *compiler.LEVELS[level].values())
    wanted, found = drive(compiled.library()), drive(library)
    assert wanted.keys() == found.keys()
    for name, truth in wanted.items():
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=1e-5 * np.abs(truth).max(), err_msg=name)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")
def test_a_sanitizer_finds_nothing(drive, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "g++")  # whose sanitizer is a library that can be loaded first
    library = make(tmp_path / "operators.so", *SANITIZED)
    asan = subprocess.check_output(("g++", "-print-file-name=libasan.so"), text=True).strip()
    assert drive(library, LD_PRELOAD=asan, ASAN_OPTIONS="detect_leaks=0", MOVIEGEN_THREADS="2")
