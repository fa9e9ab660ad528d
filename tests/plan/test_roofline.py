"""Bytes and FLOPs of a step's kinds: counted here once more, of arrays, and by hand."""

import dataclasses

import numpy as np
import pytest

from moviegen import config, plan
from moviegen.config import ConfigError, DiTConfig
from moviegen.plan import roofline
from moviegen.plan.roofline import ATTENTION, ELEMENTS, LINEAR, UPDATE, Traffic

CARD = plan.find_card("ascend-910b")
D, F = 4, 8  # widths of a network small enough to count by hand
SMALL = DiTConfig(num_layers=1, width=D, ffn_width=F, num_heads=2, text_widths=(3, 0, 0))
N, M = 6, 5  # tokens of a video and of its text


def touched(*arrays):
    """Numbers of what is read and written."""
    return sum(array.size for array in arrays)


def product(rows, ins, outs):
    left, right = np.zeros((rows, ins)), np.zeros((ins, outs))
    return touched(left, right, left @ right)


def test_a_product_touches_three_matrices_and_so_does_each_of_its_gradients():
    left, right = np.zeros((7, 3)), np.zeros((3, 5))
    gradient = left @ right
    forward = touched(left, right, gradient)
    assert roofline.product_numbers(7, 3, 5) == forward
    assert touched(gradient, right, gradient @ right.T) == forward
    assert touched(left, gradient, left.T @ gradient) == forward


def test_linear_layers_of_a_block():
    queries_and_outputs = 4 * product(N, D, D)  # of both attentions
    own_keys_and_values, texts = 2 * product(N, D, D), 2 * product(M, D, D)
    feed_forward = 2 * product(N, D, F) + product(N, F, D)
    expected = queries_and_outputs + own_keys_and_values + texts + feed_forward
    assert roofline.block_numbers(SMALL, N, M) == expected


def test_linear_layers_around_the_blocks():
    patches = product(N, 64, D) + product(N, D, 64)
    time = product(1, 256, D) + product(1, D, D) + product(1, D, 6 * D)
    assert roofline.end_numbers(SMALL, N, 1, [M]) == patches + product(M, 3, D) + time


def test_attention_stores_no_scores():
    video, text = np.zeros((N, D)), np.zeros((M, D))
    taken = [(video, video, video), (video, text, text)]  # queries, keys, values
    forward = sum(touched(*three, video) for three in taken)
    backward = sum(touched(*three, video, video) + touched(*three) for three in taken)  # and output, its gradient
    assert roofline.attention_numbers(SMALL, N, M) == (forward, backward)


def test_elementwise_work_of_a_block():
    wide, hidden = np.zeros((N, D)), np.zeros((N, F))
    norms, gated, crossed, placed = 2 * touched(wide, wide), 2 * 3 * wide.size, 3 * wide.size, 3 * wide.size
    numbers, flops = roofline.elementwise(SMALL, N)
    assert numbers == norms + gated + crossed + placed + 3 * hidden.size
    assert flops == (12 + 4 + 1 + 1) * wide.size + 5 * hidden.size


@pytest.fixture(scope="module")
def stages():
    return {
        (size, stage): roofline.memory_traffic(config.load(size), stage) for size in ("1B", "30B") for stage in (1, 3)
    }


def test_arithmetic_is_that_of_the_seconds(stages):
    for (size, stage), kinds in stages.items():
        work = plan.stage_work(config.load(size), stage)
        assert (kinds[LINEAR].flops, kinds[ATTENTION].flops) == (work.products, work.attention)


def test_the_optimizer_passes_over_its_own_part_of_the_weights_once_an_update(stages):
    """1B divides nothing and has five micro-batches; 30B divides all over eight cards and has one."""
    for size, cards, micro_batches in (("1B", 1, 5), ("30B", 8, 1)):
        dit = config.load(size).dit_config(3)
        weights = (plan.parameter_count(dit) + plan.position_count(dit)) / cards / micro_batches
        update = stages[size, 3][UPDATE]
        assert update.bytes == pytest.approx(7 * 4 * weights)  # reads w, g, m, v, writes w, m, v
        assert update.flops == pytest.approx(13 * weights)


def test_recomputed_blocks_pass_a_fourth_time_and_may_leave_attention_out():
    """A stage with everything recomputed, against one with nothing: 4 of 3 passes of all blocks."""
    changes = {"stages.3.model.recompute_every_nth_block": 0}
    nothing = roofline.memory_traffic(config.load("30B", changes), 3)
    everything = roofline.memory_traffic(config.load("30B"), 3)
    kept = roofline.memory_traffic(config.load("30B", {"stages.3.model.not_recompute_fa": True}), 3)
    assert everything[ELEMENTS].bytes == pytest.approx(nothing[ELEMENTS].bytes * 4 / 3)
    assert everything[LINEAR].bytes == pytest.approx(nothing[LINEAR].bytes * 4 / 3, rel=5e-3)  # but for the ends
    tokens, text, width = 73_728 // 8, 896, 6144
    forward = 2 * width * (6 * tokens + 2 * text)  # bytes, in bfloat16
    assert everything[ATTENTION].bytes - nothing[ATTENTION].bytes == 48 * forward
    assert kept[ATTENTION].bytes == nothing[ATTENTION].bytes


def test_products_wait_for_nothing_and_elementwise_work_for_memory(stages):
    bend = roofline.ridge(CARD, "bfloat16")
    assert bend == 376e12 / 1.6e12
    for kinds in stages.values():
        assert kinds[LINEAR].intensity > bend
        assert kinds[ELEMENTS].intensity < 1
        assert kinds[UPDATE].intensity == pytest.approx(13 / 28)


def test_below_the_bend_the_roof_falls_with_the_intensity():
    bend = roofline.ridge(CARD, "bfloat16")
    assert roofline.attainable(2 * bend, CARD, "bfloat16") == 376e12
    assert roofline.attainable(bend / 4, CARD, "bfloat16") == pytest.approx(376e12 / 4)


def test_the_least_time_is_of_the_arithmetic_or_of_the_bytes():
    assert Traffic(flops=376e12, bytes=1.6e11).seconds(CARD, "bfloat16") == 1
    assert Traffic(flops=376e11, bytes=1.6e12).seconds(CARD, "bfloat16") == 1


def test_a_card_whose_bandwidth_nobody_published_has_no_roof():
    card = dataclasses.replace(CARD, memory_bandwidth=None)
    with pytest.raises(ConfigError, match="ascend-910b: memory_bandwidth is not published"):
        roofline.ridge(card, "bfloat16")
