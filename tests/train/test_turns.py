"""Which clips batches hold: each clip once an epoch, whatever its bucket's size, and the same for whoever asks."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from moviegen.config import Bucket, visual_tokens
from moviegen.train.turns import Turns

WIDE, SQUARE, TALL = Bucket(1, 32, 64), Bucket(1, 48, 48), Bucket(1, 64, 32)  # 8, 9 and 8 tokens
COUNTS = {WIDE: 40, SQUARE: 11, TALL: 1}
EPOCHS = 30
JOBS = [(1, 1), (1, 8), (2, 1), (3, 4), (10, 8)]  # samples of a rank, ranks


def after(turns, epochs):
    """How often each clip is seen in so many epochs."""
    while len(turns.epoch_ends) < epochs:
        turns(turns.epoch_ends[-1] if turns.epoch_ends else 0)
    return turns.times_seen(turns.epoch_ends[epochs - 1])


def made(size, ranks, counts=COUNTS, seed=1):
    return Turns(counts, size, ranks, [seed])


@pytest.mark.parametrize(("size", "ranks"), JOBS)
def test_no_clip_is_seen_more_often_than_there_were_epochs_nor_much_less_often(size, ranks):
    """What waits is less than a batch of a bucket's clips, and of these no clip twice before each is there once."""
    turns = made(size, ranks)
    for epochs in (1, 2, 7, EPOCHS):
        for bucket, times in after(turns, epochs).items():
            lag = -(-(size * ranks - 1) // COUNTS[bucket])
            assert turns.longest_wait(bucket) == lag
            assert times.max() <= epochs
            assert times.min() >= epochs - lag
            assert times.max() - times.min() <= 1


@pytest.mark.parametrize(("size", "ranks"), [(1, 1), (1, 8), (2, 4)])
def test_where_each_bucket_fills_a_batch_all_clips_are_seen_equally_often_give_or_take_one(size, ranks):
    turns = made(size, ranks, {WIDE: 40, SQUARE: 11, TALL: 7})
    for epochs in range(1, EPOCHS):
        times = np.concatenate(list(after(turns, epochs).values()))
        assert times.max() - times.min() <= 1


def test_a_lone_clip_is_seen_once_an_epoch_beside_others_of_as_many_tokens():
    """Alone in its bucket it was seen eight times an epoch, once by each rank."""
    times = after(made(1, 8), EPOCHS)
    assert times[TALL].item() in (EPOCHS - 1, EPOCHS)
    batches = made(1, 8)
    for turn in range(60):
        assert sum(bucket == TALL for bucket, _ in batches(turn)) <= 2


@pytest.mark.parametrize(("size", "ranks"), JOBS)
def test_a_batch_has_a_part_of_one_bucket_for_each_rank_all_of_as_many_tokens(size, ranks):
    turns = made(size, ranks)
    for turn in range(80):
        parts = turns(turn)
        assert len(parts) == ranks
        assert len({visual_tokens(*bucket) for bucket, _ in parts}) == 1
        for bucket, places in parts:
            assert places.shape == (size,)
            assert set(places.tolist()) <= set(range(COUNTS[bucket]))
        drawn = Counter((bucket, place) for bucket, places in parts for place in places.tolist())
        enough = {bucket for bucket, count in COUNTS.items() if count >= size * ranks}
        assert all(times == 1 for (bucket, _), times in drawn.items() if bucket in enough)


def test_batches_do_not_follow_from_who_asks_in_which_order():
    straight, jumping = made(2, 3), made(2, 3)
    last = jumping(50)
    for turn in range(50):
        assert_same(straight(turn), jumping(turn))
    assert_same(straight(50), last)


def assert_same(parts, others):
    for (bucket, places), (other, same) in zip(parts, others, strict=True):
        assert bucket == other
        np.testing.assert_array_equal(places, same)


def test_buckets_come_mixed_and_in_another_order_in_another_epoch_and_with_another_seed():
    turns = made(2, 1, {WIDE: 40, TALL: 40})
    first, second = ([turns(turn) for turn in range(start, start + 40)] for start in (0, 40))
    other = [made(2, 1, {WIDE: 40, TALL: 40}, seed=2)(turn) for turn in range(40)]
    orders = [[parts[0][0] for parts in batches] for batches in (first, second, other)]
    assert sum(a != b for a, b in pairwise(orders[0])) > 10
    assert orders[0] != orders[1] != orders[2] != orders[0]
    places = [np.concatenate([parts[0][1] for parts in batches]).tolist() for batches in (first, second, other)]
    assert places[0] != places[1] != places[2] != places[0]
