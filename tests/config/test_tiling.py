import itertools

import pytest

from moviegen.config import ConfigError, Tiling, load
from moviegen.config.tiling import spans

TILED = {"frames": 16, "overlap_frames": 8, "size": (64, 96), "overlap": 32}


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "wanted"),
    [
        (5, 8, 0, [(0, 5)]),
        (8, 8, 0, [(0, 8)]),
        (20, 8, 0, [(0, 8), (8, 16), (12, 20)]),
        (4, 4, 2, [(0, 4)]),
        (6, 4, 2, [(0, 4), (2, 6)]),
        (7, 4, 2, [(0, 4), (2, 6), (3, 7)]),
        (5, 4, 2, [(0, 4), (1, 5)]),
    ],
)
def test_tiles_that_overlap_are_all_as_long(length, tile, overlap, wanted):
    assert spans(length, tile, overlap) == wanted


@pytest.mark.parametrize(("length", "tile", "overlap"), [(8, 4, 4), (8, 4, -1), (0, 4, 2)])
def test_impossible_tiles_are_refused(length, tile, overlap):
    with pytest.raises(ValueError, match="cannot cover"):
        spans(length, tile, overlap)


def test_a_clip_is_cut_in_time_and_space():
    tiling = Tiling(**TILED)
    assert tiling.encoded(37) == [(0, 16), (16, 32), (32, 37)]
    assert tiling.decoded(5) == [(0, 2), (1, 3), (2, 4), (3, 5)]
    assert tiling.cut(12, 14) == ([(0, 8), (4, 12)], [(0, 12), (2, 14)])
    assert (tiling.tiles(96, 112), tiling.tiles(64, 96), tiling.tiles(8, 104)) == (4, 1, 2)
    assert tiling.largest(100, 96, 48) == (16, 64, 48)
    assert tiling.largest(9, 8, 1024) == (9, 8, 96)


def test_without_a_size_frames_are_whole():
    assert Tiling().cut(72, 128) == ([(0, 72)], [(0, 128)])
    assert Tiling().largest(256, 576, 1024) == (32, 576, 1024)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 30}, "frames 30 is not divisible by 8"),
        ({"overlap_frames": 12}, "overlap_frames 12 is not divisible by 8"),
        ({"frames": 16}, "overlap_frames 16 must be less than frames 16"),
        ({"size": [100, 128]}, "100x128 is not divisible by 8"),
        ({"size": [64, 128]}, "overlap 64 must be divisible by 8 and less than both sides of size 64x128"),
        ({"size": [64, 128], "overlap": 20}, "overlap 20 must be divisible by 8"),
    ],
)
def test_tiles_that_cannot_be_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        load("tiny", {f"tae.tiling.{name}": value for name, value in values.items()})


def test_the_published_tiles_cover_the_published_clips_with_nothing_left_over():
    tiling = load("5B").tae.tiling
    assert tiling.tiles(576, 1024) == 6
    rows, columns = tiling.cut(72, 128)
    assert {after - stop for covered in (rows, columns) for (_, stop), (after, _) in itertools.pairwise(covered)} == {
        -8
    }
