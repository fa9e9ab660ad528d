"""Some of many clips, evenly over classes and groups."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from moviegen.data.choice import choose, round_robin, spread
from moviegen.data.clips import Clip
from moviegen.data.datasets import split_ucf101

CLIPS = [
    Clip(Path(f"{label}/v_{label}_g{group:02d}_c{number:02d}.avi"), label=label, group=group)
    for label, group, number in product("ABCDE", range(1, 11), (1, 2, 3))
]


@pytest.mark.parametrize("most", [0, 150, 1000])
def test_all_are_taken_where_there_are_no_more(most):
    assert choose(CLIPS, most, 0) == CLIPS


@pytest.mark.parametrize("most", [1, 5, 12, 50, 101, 149])
def test_classes_and_groups_share_evenly_and_the_order_stays(most):
    chosen = choose(CLIPS, most, 3)
    assert chosen == [clip for clip in CLIPS if clip in chosen] and len(chosen) == most
    counts = Counter(clip.label for clip in chosen)
    assert max(counts.values()) - min(counts[label] for label in "ABCDE") <= 1
    for label in counts:
        groups = Counter(clip.group for clip in chosen if clip.label == label)
        assert max(groups.values()) - min(groups[group] for group in range(1, 11)) <= 1


def test_a_class_of_few_clips_gives_all_and_others_fill_up():
    clips = CLIPS[:2] + CLIPS[30:60]
    assert Counter(clip.label for clip in choose(clips, 12, 0)) == {"A": 2, "B": 10}


def test_classes_keep_the_same_groups_and_can_be_split_by_them():
    chosen = choose(CLIPS, 25, 0)
    groups = {label: {clip.group for clip in chosen if clip.label == label} for label in "ABCDE"}
    assert len({tuple(sorted(members)) for members in groups.values()}) == 1
    train, test = split_ucf101(chosen)
    assert len({clip.group for clip in test}) == 1
    assert not {clip.group for clip in train} & {clip.group for clip in test}


def test_which_ones_follows_from_the_seed():
    assert choose(CLIPS, 7, 1) == choose(CLIPS, 7, 1) != choose(CLIPS, 7, 2)
    kept = {clip.label for seed in range(40) for clip in choose(CLIPS, 2, seed)}
    assert kept == set("ABCDE")


def test_a_video_of_several_captions_comes_once_before_any_comes_again():
    clips = [Clip(Path(f"{n}.mp4"), f"caption {c}", "mixkit", n) for n in range(10) for c in range(5)]
    assert len({clip.path for clip in choose(clips, 10, 0)}) == 10


def test_kinds_take_turns():
    assert round_robin("aaabbc", str) == list("abcaba")
    assert round_robin([], str) == []


def test_spread_takes_as_many_of_each_kind_as_can_be_in_their_order():
    members = {"wide": list(range(50)), "tall": list(range(3)), "square": [7]}
    found = spread(members, 11, 0)
    assert {kind: len(items) for kind, items in found.items()} == {"wide": 7, "tall": 3, "square": 1}
    assert all(items == sorted(set(items)) and set(items) <= set(members[kind]) for kind, items in found.items())
    assert found == spread(members, 11, 0)
    assert found["wide"] != spread(members, 11, 1)["wide"]
    assert spread(members, 2, 0).keys() == {"wide", "tall"}


@pytest.mark.parametrize("most", [0, 54, 99])
def test_spread_keeps_all_where_there_are_no_more(most):
    members = {"wide": list(range(50)), "tall": list(range(3)), "square": [7]}
    assert spread(members, most, 0) == members
