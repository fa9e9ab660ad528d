import numpy as np
import pytest

from moviegen.runs.arrays import CheckpointError
from moviegen.runs.parts import npz_in_parts, stored_parts

VALUES = np.random.default_rng(0).standard_normal((3, 11, 2, 5), np.float32)


def test_what_is_written_in_parts_is_what_numpy_reads(tmp_path):
    path = tmp_path / "new" / "a.npz"
    with npz_in_parts(path, {"a": VALUES.shape, "b": VALUES.shape}, frames=7, fps=12.5) as put:
        for start, stop in ((0, 4), (4, 8), (8, 11)):
            put(start, {"a": VALUES[:, start:stop], "b": -VALUES[:, start:stop].astype(np.float64)})
    with np.load(path, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.name for name in arrays} == {
            "a": "float32", "b": "float32", "frames": "int64", "fps": "float64",
        }  # fmt: skip
        np.testing.assert_array_equal(arrays["a"], VALUES)
        np.testing.assert_array_equal(arrays["b"], -VALUES)
        assert (arrays["frames"], arrays["fps"]) == (7, 12.5)
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), npz_in_parts(tmp_path / "a.npz", {"a": VALUES.shape}) as put:
        put(0, {"a": VALUES[:, :4]})
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("values", [VALUES, np.asfortranarray(VALUES), VALUES.astype(np.float64)])
def test_parts_are_those_of_the_whole(tmp_path, save, values):
    save(tmp_path / "a.npz", other=np.ones(3), a=values)
    stored = stored_parts(tmp_path / "a.npz", "a")
    assert stored.shape == values.shape
    for start, stop in ((0, 11), (0, 1), (3, 7), (10, 11)):
        np.testing.assert_array_equal(stored.read(start, stop), values[:, start:stop])


def test_damage_is_named_before_anything_is_made_of_it(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=VALUES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for name in ("a", "b"):
        with pytest.raises(CheckpointError, match=r"cannot read .*a\.npz"):
            stored_parts(path, name)
