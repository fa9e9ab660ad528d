"""Traffic by hand; tests/parallel/test_traffic_counted.py counts it in the graphs of jobs."""

import math

import pytest

from moviegen import config, plan
from moviegen.config import Bucket
from moviegen.dit.layers import Linear
from moviegen.dit.model import DiT
from moviegen.plan.traffic import (
    Exchange,
    recipe_traffic,
    sent_in_shard_group,
    stage_traffic,
    token_traffic,
    weight_traffic,
    weights_of,
)

# D = 6, F = 10, two blocks; an encoder is left out
SMALL = config.DiTConfig(
    width=6, ffn_width=10, num_heads=2, num_layers=2, max_size=(1, 2, 3), latent_channels=4, text_widths=(5, 0, 7),
    frequency_width=8,
)  # fmt: skip


def rows_by(rows, **wanted):
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def test_weights_are_those_of_the_network():
    network = DiT(SMALL)
    matrices = {name: cell.weight.size for name, cell in network.cells_and_names() if isinstance(cell, Linear)}
    in_blocks = {name for name in matrices if name.startswith("layers.")}
    first = {name for name in matrices if name.split(".")[0] in ("latent_embedder", "text_projector")}
    time = {"timestep_embedder.mlp.0", "timestep_embedder.mlp.2"}
    others = [one.size for name, one in network.parameters_and_names() if name.removesuffix(".weight") not in matrices]
    found = weights_of(SMALL)
    assert sorted(found.first) == sorted(matrices[name] for name in first)
    assert sorted(2 * found.block) == sorted(matrices[name] for name in in_blocks)
    assert sorted(found.shared) == sorted(matrices[name] for name in matrices.keys() - in_blocks - first - time)
    assert sorted(found.time) == sorted(matrices[name] for name in time)
    assert sorted(found.whole) == sorted(others)


@pytest.mark.parametrize("scale", ["1B", "5B", "30B"])
def test_they_add_up_to_the_published_sizes(scale):
    params = config.load(scale)
    found, config_ = weights_of(params.dit_config(3)), params.dit_config(3)
    matrices = sum(found.first + found.time) + config_.num_layers * sum(found.block) + sum(found.shared)
    assert matrices == plan.matrix_count(config_)
    assert matrices + sum(found.whole) == plan.parameter_count(config_) + plan.position_count(config_)


def test_an_all_reduce_passes_twice_and_a_rank_keeps_its_part():
    assert Exchange("all-gather", "", "float32", "update", "job", ranks=4, calls=1, size=400).sent == 300
    assert Exchange("reduce-scatter", "", "float32", "update", "job", ranks=4, calls=1, size=400).sent == 300
    assert Exchange("all-reduce", "", "float32", "update", "job", ranks=4, calls=1, size=400).sent == 600
    assert Exchange("all-to-all", "", "float32", "update", "job", ranks=4, calls=1, size=400).sent == 300


def test_parts_are_padded_and_whole_gradients_are_not():
    # of five ranks, a norm's six numbers are ten
    sizes = [6] * 2 * 2 + [36] * 2 + [6] * 2 + [6, 12] + [6, 12, 18]
    (updated,) = rows_by(weight_traffic(SMALL, 3, cards=5), purpose="other updated weights")
    assert (updated.calls, updated.size) == (len(sizes), 4 * sum(math.ceil(size / 5) * 5 for size in sizes))
    (gradients,) = rows_by(weight_traffic(SMALL, 0, cards=5), collective="all-reduce")
    assert gradients.size == 4 * (plan.parameter_count(SMALL) + plan.position_count(SMALL))


@pytest.mark.parametrize(
    ("zero_stage", "micro_batch", "update"),
    [
        (0, [], ["all-reduce"]),
        (1, [], ["all-gather", "all-gather", "all-reduce", "reduce-scatter"]),
        (2, ["reduce-scatter"], ["all-gather", "all-gather", "all-reduce"]),
        (3, ["all-gather", "all-gather", "all-gather", "reduce-scatter"], ["all-gather", "all-reduce"]),
    ],
)
def test_gradients_of_stages_2_and_3_pass_in_every_micro_batch(zero_stage, micro_batch, update):
    rows = weight_traffic(SMALL, zero_stage, cards=2)
    assert sorted(row.collective for row in rows_by(rows, moment="micro-batch")) == micro_batch
    assert sorted(row.collective for row in rows_by(rows, moment="update")) == update


@pytest.mark.parametrize(("zero_stage", "gathers"), [(2, 1), (3, 2)])
def test_matrices_are_gathered_in_the_arithmetics_type(zero_stage, gathers):
    """All but the two that embed the time."""
    full, half = (weight_traffic(SMALL, zero_stage, 2, dtype) for dtype in ("float32", "bfloat16"))
    (halved,) = {row.dtype for row in half} - {"float32"}
    assert halved == "bfloat16"
    less = [(row, other) for row, other in zip(full, half, strict=True) if row != other]
    assert all(row.size == 2 * other.size and row.calls == other.calls for row, other in less)
    assert len(less) == gathers
    found = weights_of(SMALL)
    assert less[0][1].size == 2 * sum(found.first + 2 * found.block + found.shared)


def test_a_blocks_all_to_alls_are_those_of_the_formula():
    rows = token_traffic(SMALL, tokens=7, samples=3, shards=2, again=1, dtype="bfloat16")
    swaps = rows_by(rows, collective="all-to-all")
    assert sum(row.calls for row in swaps) == 2 * (2 + 2) + 2  # queries, keys and values go together
    assert sum(row.sent for row in swaps) == 2 * 3 * (2 + 2 + 1) * plan.ulysses_traffic(SMALL, 8, 2)  # 7 are padded
    (joined,) = rows_by(rows, collective="all-gather")
    assert (joined.dtype, joined.calls, joined.size) == ("float32", 1, 4 * 3 * 8 * 16)
    assert sent_in_shard_group(rows) == sum(row.sent for row in swaps) + joined.size / 2


def test_tokens_that_are_not_shared_are_not_sent():
    assert token_traffic(SMALL, 7, 3, shards=1, again=2, dtype="bfloat16") == []


def test_a_stage_is_its_recipe_on_its_cards():
    params = config.load("30B")
    rows = stage_traffic(params, 2)
    clip = Bucket(256, 256, 448)
    assert rows == recipe_traffic(params.dit_config(2), params.recipes[2], 8, clip, "bfloat16")
    assert {row.dtype for row in rows_by(rows, collective="all-to-all")} == {"bfloat16"}
    assert sum(row.calls for row in rows_by(rows, collective="all-to-all")) == 6 * 48
    assert {row.dtype for row in rows_by(rows, collective="reduce-scatter")} == {"float32"}
    assert stage_traffic(params, 2, Bucket(64, 256, 448)) != rows


def test_on_a_cpu_activations_are_float32():
    params = config.load("tiny", {"train.settings.dtype": "bfloat16"})
    assert {row.dtype for stage in params.recipes for row in stage_traffic(params, stage)} == {"float32"}


def test_a_card_alone_sends_nothing():
    params = config.load("5B", {"launch.worker_num": 1, "launch.local_worker_num": 1})
    assert all(stage_traffic(params, stage) == [] for stage in (1, 2, 3))
