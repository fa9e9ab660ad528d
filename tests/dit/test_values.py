"""What weights start from is the same on any number of ranks, of which each asks for its own part."""

import numpy as np
import pytest

from moviegen.device.world import World
from moviegen.dit.values import Drawn, Stored, declared
from moviegen.dit.weights import save_dit
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import CheckpointError
from tests.small_runs import random_dit

RANKS = 3  # divides no weight evenly


def parts(values, sizes):
    """Name -> the ranks' parts, one after the other."""
    return {
        name: np.concatenate([values(name, *Zero.interval(_Rank(rank), size)) for rank in range(RANKS)])
        for name, size in sizes.items()
    }


class _Rank:
    def __init__(self, rank):
        self.world = World(rank, RANKS)


@pytest.fixture(scope="module")
def sizes(small):
    return {name: int(np.prod(weight.shape)) for name, weight in declared(small).parameters_and_names()}


def test_drawn_parts_are_those_of_the_whole_to_the_bit(small, sizes, monkeypatch):
    monkeypatch.setattr(Drawn, "BLOCK", 7)  # so that parts begin and end within blocks
    drawn = Drawn(declared(small), seed=3)
    for name, joined in parts(drawn, sizes).items():
        assert joined.tobytes() == drawn(name, 0, sizes[name]).tobytes(), name


def test_one_process_starts_from_what_is_drawn(small, sizes):
    dit = declared(small)
    drawn = Drawn(dit, seed=3)
    arrays = Zero(dit, 0, World(), drawn).arrays()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.reshape(-1), drawn(name, 0, sizes[name]), err_msg=name)
    assert not arrays["final_layer.proj.weight"].any()
    matrix = arrays["layers.0.mlp.gate_proj.weight"]
    assert matrix.std() == pytest.approx(matrix.shape[1] ** -0.5, rel=0.1)


def test_other_seeds_and_other_weights_have_other_values(small):
    one, other = (Drawn(declared(small), seed) for seed in (3, 4))
    name, again = "layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight"
    assert (one(name, 0, 9) != other(name, 0, 9)).all()
    assert (one(name, 0, 9) != one(again, 0, 9)).all()


def test_stored_parts_are_the_files(small, sizes, tmp_path):
    dit = random_dit(small)
    save_dit(tmp_path / "dit.safetensors", dit)
    joined = parts(Stored(declared(small), tmp_path / "dit.safetensors"), sizes)
    for name, weight in dit.parameters_and_names():
        np.testing.assert_array_equal(joined[name], weight.asnumpy().reshape(-1), err_msg=name)


def test_a_value_that_is_not_finite_is_refused(small, tmp_path):
    dit = random_dit(small)
    arrays = {name: weight.asnumpy().copy() for name, weight in dit.parameters_and_names()}
    arrays["final_layer.proj.weight"][-1, -1] = np.nan
    save_dit(tmp_path / "dit.safetensors", dit, arrays)
    with pytest.raises(CheckpointError, match=r"final_layer\.proj\.weight holds NaN"):
        Stored(declared(small), tmp_path / "dit.safetensors")(
            "final_layer.proj.weight", 0, arrays["final_layer.proj.weight"].size
        )
