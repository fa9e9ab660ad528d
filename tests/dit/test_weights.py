import numpy as np
import pytest

from moviegen import config
from moviegen.device import compiled
from moviegen.device.compiler import NoBfloat16Error
from moviegen.dit.inference import load_dit, load_stage
from moviegen.dit.model import DiT
from moviegen.dit.positions import grow_table
from moviegen.dit.weights import load_weights, save_dit
from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.runs.weights import to_arrays

TABLES = {f"pos_embedding_table_{axis}.embedding_table" for axis in "thw"}


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("dit") / "dit.safetensors"
    dit = DiT(small)
    save_dit(path, dit)
    return path, to_arrays(dict(dit.parameters_and_names()))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("length", [5, 7, 10, 15])
def test_growth_is_linear_interpolation(length, dtype):
    """In float32, also where a file's weights are not."""
    table = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    places = np.arange(length) * 5 / length  # np.interp repeats the last row past the end
    wanted = np.stack([np.interp(places, np.arange(5), column) for column in table.T.astype(float)], 1)
    grown = grow_table(table, length)
    assert grown.dtype == np.float32
    np.testing.assert_allclose(grown, wanted, atol=1e-6)


def test_one_row_is_repeated():
    row = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    grown = grow_table(row, 6)
    np.testing.assert_allclose(grown, np.repeat(row, 6, 0), rtol=2e-7)
    np.testing.assert_array_equal(grown[0], row[0])  # all that an image sees: to the bit


def test_larger_tables_keep_all_other_weights(small, saved):
    path, old = saved
    dit = DiT(small.model_copy(update={"max_size": (4, 4, 9)}))
    load_weights(dit, path, grow=True)
    new = to_arrays(dict(dit.parameters_and_names()))
    assert new.keys() == old.keys()
    for name in old.keys() - TABLES:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
    for axis, times in zip("thw", (4, 2, 3), strict=True):
        name = f"pos_embedding_table_{axis}.embedding_table"
        assert len(new[name]) == times * len(old[name])
        np.testing.assert_array_equal(new[name][::times], old[name])


def test_another_width_is_refused_by_names_and_both_shapes(small, saved):
    with pytest.raises(CheckpointError, match=r"of another shape: .*\(\d+, 16\) for \(\d+, 32\)") as refusal:
        load_dit(saved[0], small.model_copy(update={"width": 32}))
    assert str(saved[0]) in str(refusal.value)


def test_tables_shrink_nowhere(small, saved):
    with pytest.raises(CheckpointError, match="3 rows cannot shrink to 2"):
        load_weights(DiT(small.model_copy(update={"max_size": (1, 2, 2)})), saved[0], grow=True)


@pytest.mark.parametrize("max_size", [(1, 2, 2), (1, 2, 6)])
def test_tables_grow_only_where_that_is_asked_for(small, saved, max_size):
    with pytest.raises(CheckpointError, match=rf"w\.embedding_table: \(3, 16\) for \({max_size[2]}, 16\)"):
        load_weights(DiT(small.model_copy(update={"max_size": max_size})), saved[0])


@pytest.mark.parametrize("axis", "thw")
def test_weights_without_a_table_are_refused(small, saved, tmp_path, axis):
    name = f"pos_embedding_table_{axis}.embedding_table"
    others = {key: array for key, array in saved[1].items() if key != name}
    save_arrays(tmp_path / "less.safetensors", others)
    with pytest.raises(CheckpointError, match=f"no {name} among the weights"):
        load_dit(tmp_path / "less.safetensors", small)
    with pytest.raises(CheckpointError, match=f"no {name} among the weights"):
        load_weights(DiT(small), tmp_path / "less.safetensors", grow=True)


def test_a_truncated_file_is_refused(small, saved, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved[0].read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"cannot read .*cut\.safetensors"):
        load_dit(path, small)


def test_arithmetic_that_the_device_lacks_is_an_error(tmp_path, monkeypatch):
    save_dit(tmp_path / "dit.safetensors", DiT(config.load("smoke").dit_config(3)))
    params = config.load("smoke", {"stages.3.train.settings.dtype": "bfloat16"})
    monkeypatch.setenv(compiled.CHOICE, "mindspore")
    with pytest.raises(NoBfloat16Error, match="bfloat16 takes on CPU compiled operators"):
        load_stage(tmp_path / "dit.safetensors", params, 3)
