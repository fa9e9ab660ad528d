import json
import warnings

import numpy as np
import pytest

from moviegen.train.checkpoint import Checkpoint, Checkpoints


def checkpoint(step):
    weights = {"a.weight": np.full((2, 3), step, np.float32), "b": np.arange(4, dtype=np.float32)}
    optimizer = {"updates": np.array(step, np.float32), "moment1.b": np.ones(4, np.float32)}
    return Checkpoint(step, weights, optimizer, {"rate": {"scale": 0.5, "best": None, "waited": step}})


@pytest.fixture
def three(tmp_path):
    """Steps 2, 4 and 10: the order of numbers is not that of their digits."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=5)
    for step in (2, 4, 10):
        checkpoints.save(checkpoint(step))
    return checkpoints


def steps(checkpoints):
    return sorted(int(folder.name.removeprefix("step-")) for folder in checkpoints.folder.iterdir())


def test_latest_is_the_newest_and_whole(three):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latest = three.latest()
    wanted = checkpoint(10)
    assert (latest.step, latest.state["rate"]) == (10, wanted.state["rate"])
    for loaded, saved in ((latest.weights, wanted.weights), (latest.optimizer, wanted.optimizer)):
        assert loaded.keys() == saved.keys()
        for name, array in saved.items():
            assert loaded[name].dtype == array.dtype
            np.testing.assert_array_equal(loaded[name], array)


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoints(tmp_path / "absent", keep=1).latest() is None


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 20):
        checkpoints.save(checkpoint(step))
    assert steps(checkpoints) == [3, 20]


def test_saving_a_step_again_replaces_it(three):
    three.save(Checkpoint(10, {"b": np.zeros(1, np.float32)}, {"updates": np.zeros(1)}, {}))
    assert three.latest().weights.keys() == {"b"}
    assert steps(three) == [2, 4, 10]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "damage"), [
    ("weights.safetensors", truncate), ("optimizer.safetensors", truncate), ("state.json", truncate),
    ("weights.safetensors", flip), ("optimizer.safetensors", lambda path: path.unlink()),
])  # fmt: skip
def test_damaged_newest_is_named_and_passed_over(three, name, damage):
    damage(three.folder / "step-000010" / name)
    with pytest.warns(UserWarning, match="step-000010 is damaged"):
        latest = three.latest()
    assert latest.step == 4
    np.testing.assert_array_equal(latest.weights["a.weight"], checkpoint(4).weights["a.weight"])


def test_all_damaged_is_none_after_a_warning_each(three):
    for state in three.folder.glob("step-*/state.json"):
        state.write_text(json.dumps({"step": 1}))
    with pytest.warns(UserWarning) as warned:
        assert three.latest() is None
    assert len(warned) == 3


def test_a_save_that_was_cut_short_is_ignored_and_can_be_repeated(three):
    unfinished = three.folder / ".step-000012.tmp"
    unfinished.mkdir()
    (unfinished / "weights.safetensors").write_bytes(b"half")
    assert three.latest().step == 10
    three.save(checkpoint(12))
    assert three.latest().step == 12
    assert not unfinished.exists()
