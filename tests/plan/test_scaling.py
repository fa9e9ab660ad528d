"""A stage on other numbers of cards: what must hold whatever the numbers are."""

from itertools import pairwise

import pytest

from moviegen import config, plan
from moviegen.config import Bucket
from moviegen.plan.dit_memory import training_memory
from moviegen.plan.time import exchanging_seconds

PARAMS, CARD = config.load("30B"), plan.find_card("ascend-910b")
SPEED = plan.Speed(attention=0.4, overhead=0.2, hidden=1.0)
COUNTS = [2**power for power in range(3, 13)]


def scaled(shards, samples=512):
    return plan.strong_scaling(PARAMS, 3, CARD, SPEED, samples, shards, COUNTS)


@pytest.mark.parametrize("shards", [8, 16])
def test_more_cards_are_never_slower_and_hold_less(shards):
    points = scaled(shards)
    assert [point.cards for point in points] == [count for count in COUNTS if shards <= count <= 512 * shards]
    assert [point.cards // shards * point.micro_batches for point in points] == [512] * len(points)
    for fewer, more in pairwise(points):
        assert more.seconds <= fewer.seconds
        assert more.state_bytes < fewer.state_bytes
        assert more.computed == pytest.approx(fewer.computed / 2)


def test_gains_end_where_exchanging_takes_longer_than_computing():
    """Weights are gathered by however many cards share a video: what each computes falls, what it gets does not."""
    lone = [plan.strong_scaling(PARAMS, 2, CARD, SPEED, 1, shards, (shards,))[0] for shards in (8, 16, 24, 48)]
    assert [point.micro_batches for point in lone] == [1] * 4
    assert [point.exchanged < point.computed for point in lone] == [True, False, False, False]
    work = [point.cards * point.seconds for point in lone]
    assert work == sorted(work)
    assert work[-1] > 1.2 * work[-2]


def test_counts_that_cannot_share_the_videos_evenly_are_left_out():
    assert [point.cards for point in plan.strong_scaling(PARAMS, 3, CARD, SPEED, 6, 8, (4, 8, 16, 24, 32, 48))] == [
        8,
        16,
        24,
        48,
    ]


def test_shards_that_no_heads_can_share_are_refused():
    with pytest.raises(ValueError, match="48 attention heads"):
        scaled(32)


def test_an_update_that_grows_with_the_cards_takes_as_long_but_for_what_is_exchanged():
    points = plan.weak_scaling(PARAMS, 3, CARD, SPEED, 2, 8, (4, *COUNTS))
    assert [point.cards for point in points] == COUNTS
    assert [point.samples for point in points] == [2 * count // 8 for count in COUNTS]
    for fewer, more in pairwise(points):
        assert more.computed == fewer.computed
        assert more.exchanged >= fewer.exchanged
        assert more.memory.total < fewer.memory.total


def test_a_point_is_of_the_recipe_on_so_many_cards():
    (point,) = plan.weak_scaling(PARAMS, 3, CARD, SPEED, 4, 16, (64,))
    changes = {"train.sequence_parallel.shards": 16, "train.settings.gradient_accumulation_steps": 4}
    stage = {f"stages.3.{name}": value for name, value in changes.items()}
    params = plan.with_cards(config.load("30B", {**stage, "launch.worker_num": 64}), 64, CARD)
    work, clip = plan.stage_work(params, 3), Bucket(256, 576, 1024)
    assert point.memory == training_memory(params, 3, clip)
    assert (point.seconds, point.exchanged) == (
        plan.update_seconds(work, CARD, SPEED),
        exchanging_seconds(work, CARD),
    )
    assert point.swapped == 4 * work.swapped
    assert point.gathered == 4 * work.gathered + work.gathered_at_update
