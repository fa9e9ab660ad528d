"""What a stage of the transformer starts from."""

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.dit.weights import save_dit
from moviegen.parallel.mesh import Mesh
from moviegen.train.dit import build
from moviegen.weights import load_arrays, to_arrays
from tests import small_runs


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def built(params, stage):
    return to_arrays(dict(build(runs.find(params, f"stage{stage}"), stage, Mesh(0, 1, 1)).parameters_and_names()))


def test_a_stage_starts_from_the_one_before_with_its_tables_grown():
    params = config.load("smoke")
    small_runs.write_dit(params, 1)
    before, _ = load_arrays(runs.find(params, "stage1").folder / "dit.safetensors")
    after = built(params, 2)
    for axis, length, times in (("t", 4, 4), ("h", 12, 2), ("w", 12, 2)):
        name = f"pos_embedding_table_{axis}.embedding_table"
        assert len(after[name]) == length
        np.testing.assert_array_equal(after.pop(name)[::times], before.pop(name))
    assert after.keys() == before.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_stage_starts_from_a_named_file_with_its_tables_grown(tmp_path):
    own = small_runs.random_dit(config.load("smoke").dit_config(1))
    save_dit(tmp_path / "named.safetensors", own)
    params = config.load("smoke", {"stages.3.model.pretrained_model_path": str(tmp_path / "named.safetensors")})
    after, name = built(params, 3), "pos_embedding_table_h.embedding_table"
    np.testing.assert_array_equal(after[name][::6], own.pos_embedding_table_h.embedding_table.asnumpy())
