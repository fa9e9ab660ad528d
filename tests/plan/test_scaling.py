"""A stage on other numbers of cards: what must hold whatever the numbers are."""

from itertools import pairwise

import pytest

from moviegen import config, plan

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
    lone = [plan.strong_scaling(PARAMS, 3, CARD, SPEED, 1, shards, (shards,))[0] for shards in (8, 16, 24, 48)]
    assert [point.micro_batches for point in lone] == [1] * 4
    assert [point.exchanged < point.computed for point in lone] == [True, True, True, False]
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
