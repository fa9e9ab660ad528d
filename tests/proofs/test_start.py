"""What is proven of a stage's start, at sizes of a second."""

import pytest

from moviegen.proofs import start


def test_a_caption_takes_what_is_counted(tmp_path):
    short, longest = start.caption_proofs(tmp_path)
    assert short.holds and longest.holds
    assert short.measured < longest.measured / 5
    assert longest.measured * 1024 == pytest.approx(2 * (512 * 4096 + 256 * 1280 + 128 * 1472), rel=0.01)


def test_clips_of_small_buckets_are_seen_as_often_as_others():
    for proof in start.frequency_proofs():
        assert proof.holds
        assert proof.highest < start.EPOCHS * (start.RANKS - 1)


def test_starting_opens_one_file_of_a_cache(tmp_path):
    found = start.measured("cache", str(tmp_path), "12")
    assert (found["files"], found["first"], found["other"]) == (12, 1, 1)
