from dataclasses import replace

import pytest

from moviegen import config, plan
from moviegen.config import shapes
from tests.golden import SETS, weights

SMALL = config.DiTConfig(width=64, ffn_width=176, num_heads=4, num_layers=2, max_size=(4, 8, 8))


@pytest.mark.parametrize(("size", "billions"), (("1B", 0.93), ("5B", 4.92), ("30B", 29.30)))
def test_published_sizes(size, billions):
    assert round(plan.parameter_count(config.SIZES[size]) / 1e9, 2) == billions


@pytest.mark.parametrize("golden", SETS.values(), ids=SETS)
def test_counts_the_released_implementations_parameters(golden):
    sizes = {name: array.size for name, array in weights(golden.read("dit")).items()}
    positions = sum(size for name, size in sizes.items() if "pos_embedding_table" in name)
    assert plan.position_count(golden.dit) == positions
    assert plan.parameter_count(golden.dit) == sum(sizes.values()) - positions


def test_tokens_of_the_published_recipes():
    assert shapes.visual_tokens(256, 576, 1024) == 73_728
    assert shapes.visual_tokens(1, 256, 448) == 16 * 28
    assert shapes.visual_tokens(9, 16, 16) == 2


def test_block_flops_by_hand():
    # D = 64, F = 176, N = 10, M = 3
    projections = 2 * 64 * 64 * (4 * 10 + 2 * 10 + 2 * 3)
    feed_forward = 2 * 10 * 3 * 64 * 176
    attention = 2 * 2 * 10 * 10 * 64 + 2 * 2 * 10 * 3 * 64
    assert plan.block_flops(SMALL, 10, 3) == projections + feed_forward + attention


def test_recomputation_costs_one_more_forward_of_the_blocks():
    plain = plan.step_flops(SMALL, 10, (1, 1, 1))
    block = plan.block_flops(SMALL, 10, 3)
    assert plan.step_flops(SMALL, 10, (1, 1, 1), recompute_every=1) - plain == 2 * block
    assert plan.step_flops(SMALL, 10, (1, 1, 1), recompute_every=2) - plain == block
    without_attention = plan.step_flops(SMALL, 10, (1, 1, 1), recompute_every=1, keep_attention=True) - plain
    assert without_attention == 2 * (block - plan.attention_flops(SMALL, 10, 3))


def test_a_recomputed_residual_block_is_two_convolutions_more():
    """Of 9 and 3 places; one block a level of the encoder, two of the decoder, two in the middle of each."""
    shape = config.TAEConfig(base_channels=4, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, num_groups=2)
    places = [8 * 16 * 16, 4 * 8 * 8, 2 * 4 * 4, 1 * 2 * 2]
    blocks = [*places, *2 * places[-1:], *2 * places[-1:], *(size for size in reversed(places) for _ in range(2))]
    plain = plan.tae_training(shape, 8, 16, 16).total
    for every in (1, 2, 3):
        again = plan.tae_training(shape, 8, 16, 16, recompute_every=every).total - plain
        assert again == sum(2 * 2 * (9 + 3) * 4 * 4 * size for size in blocks[every - 1 :: every])


@pytest.mark.parametrize(("every", "blocks"), [(1, 5), (2, 2), (3, 1), (5, 1), (6, 0)])
def test_every_nth_block_of_five_is_recomputed(every, blocks):
    five = SMALL.model_copy(update={"num_layers": 5})
    again = plan.step_flops(five, 10, (1, 1, 1), recompute_every=every)
    assert again - plan.step_flops(five, 10, (1, 1, 1)) == blocks * plan.block_flops(five, 10, 3)
    assert len(range(5)[every - 1 :: every]) == blocks  # which those are, in `DiT.recompute_blocks`


def test_matrices_by_hand():
    # D = 64, F = 176: attention 8 D^2, feed-forward 3 D F; time 256 -> D -> D -> 6 D; texts; 64-wide patches in and out
    block = 8 * 64 * 64 + 3 * 64 * 176
    ends = (256 + 64 + 6 * 64) * 64 + (4096 + 1280 + 1472) * 64 + 2 * 64 * 64
    assert plan.matrix_count(SMALL) == 2 * block + ends


@pytest.mark.parametrize(
    ("zero_stage", "weights", "gradients", "optimizer"),
    # bytes a parameter, of matrices and of the others: at stages 1 to 3 whole weights have this rank's part beside them
    [
        (0, (4, 4), 4, (8, 8)),
        (1, (4, 4), 4, (12 / 8, 12 / 8)),
        (2, (4, 4), 4 / 8, (12 / 8, 12 / 8)),
        (3, (4 / 8, 4), 4 / 8, (8 / 8, 12 / 8)),
    ],
)
def test_zero_divides_what_it_shards(zero_stage, weights, gradients, optimizer):
    matrices = plan.matrix_count(SMALL)
    others = plan.parameter_count(SMALL) + plan.position_count(SMALL) - matrices
    state = plan.state_bytes(SMALL, 8, zero_stage, micro_batches=2)
    assert state.parameters == weights[0] * matrices + weights[1] * others
    assert state.gradients == gradients * (matrices + others)
    assert state.optimizer == optimizer[0] * matrices + optimizer[1] * others
    assert state.total == state.parameters + state.gradients + state.optimizer


@pytest.mark.parametrize("zero_stage", range(4))
def test_one_micro_batch_needs_no_sums(zero_stage):
    one, two = (plan.state_bytes(SMALL, 8, zero_stage, micro_batches) for micro_batches in (1, 2))
    assert one == replace(two, gradients=0)


@pytest.mark.parametrize("zero_stage", range(4))
def test_one_rank_alone_has_nobody_to_divide_with(zero_stage):
    assert plan.state_bytes(SMALL, 1, zero_stage, 2) == plan.state_bytes(SMALL, 8, 0, 2)


@pytest.mark.parametrize("stage", (1, 2, 3))
def test_a_stages_state_is_that_of_its_zero_stage(stage):
    params = config.load("tiny")
    zero_stage = params.recipes[stage].train.settings.zero_stage
    assert plan.stage_cost(params, stage).state == plan.state_bytes(params.dit_config(stage), 2, zero_stage, 1)
    params = config.load("tiny", {"train.settings.gradient_accumulation_steps": 3})
    assert plan.stage_cost(params, stage).state == plan.state_bytes(params.dit_config(stage), 2, zero_stage, 3)


def test_ulysses_traffic_stays_constant_as_tokens_and_ranks_grow_together():
    few, many = plan.ulysses_traffic(SMALL, 1024, 8), plan.ulysses_traffic(SMALL, 8192, 64)
    assert few == 4 * 1024 * 64 // 8 * 7 // 8
    assert many == pytest.approx(few, rel=0.15)
    assert plan.ulysses_traffic(SMALL, 1024, 1) == 0
    assert plan.gathered_traffic(SMALL, 8192, 64) > 60 * many


@pytest.mark.parametrize(
    ("value", "text"), ((4_920_000_000, "4.92 G"), (29.3e9, "29.3 G"), (320e6, "320 M"), (12.0, "12 "))
)
def test_si_prefixes(value, text):
    assert plan.si(value) == text
