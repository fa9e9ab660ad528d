"""The script that makes the small golden set: what it refuses, and that it makes the same again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.golden import SMALL, make


@pytest.fixture
def golden(tmp_path, monkeypatch):
    """A copy of the small set, in the place of the given one; the script writes to a folder beside it."""
    for part in make.BOUNDS:
        shutil.copy(SMALL.path(part), tmp_path)
    (tmp_path / "made").mkdir()
    golden = replace(SMALL, folder=tmp_path)
    monkeypatch.setattr(make, "GIVEN", golden)
    monkeypatch.setattr(make, "SMALL", replace(SMALL, folder=tmp_path / "made"))
    return golden


def test_makes_the_same_bytes_again(golden):
    make.main()
    for part in make.BOUNDS:
        assert make.SMALL.path(part).read_bytes() == golden.path(part).read_bytes()


def refused(golden, message):
    with pytest.raises(SystemExit, match=f"nothing written.*{message}"):
        make.main()
    return not any(make.SMALL.path(part).exists() for part in make.BOUNDS)


@pytest.mark.parametrize("part", make.BOUNDS)
def test_writes_nothing_where_a_given_file_is_absent(golden, part):
    golden.path(part).unlink()
    assert refused(golden, f"there is no .*{part}.npz")


@pytest.mark.parametrize(
    ("part", "name"),
    [("dit", "case2/output"), ("tae", "encode/9/mean"), ("tae", "decode/16/video"), ("schedule", "linear_51")],
)
def test_writes_nothing_where_a_given_number_is_another(golden, part, name):
    arrays = golden.read(part)
    arrays[name].flat[-1] += 1e-5 * np.abs(arrays[name]).max()
    np.savez(golden.path(part), **arrays)
    assert refused(golden, f"{name} in .*{part}.npz is ")
