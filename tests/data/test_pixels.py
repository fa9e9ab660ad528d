import numpy as np
import pytest

from moviegen.config import ConfigError
from moviegen.data.pixels import clip_indices, random_resized_crop, resize_and_crop, to_uint8


def test_round_trip_is_exact_without_resizing():
    frames = np.arange(2 * 16 * 8 * 3, dtype=np.uint8).reshape(2, 16, 8, 3)
    video = resize_and_crop(frames, 16, 8)
    assert video.dtype == np.float32 and video.shape == (3, 2, 16, 8)
    assert video.min() == -1 and video.max() == 1  # 0 and 255 both occur
    assert np.array_equal(to_uint8(video), frames)


def test_to_uint8_clips_and_rounds():
    video = np.array([-5, -1, 0.0, 1, 7, 2 * 100.4 / 255 - 1], np.float32).reshape(1, 1, 1, 6).repeat(3, 0)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 100]


def test_what_is_no_number_is_refused_and_not_shown_as_black():
    video = np.zeros((3, 2, 8, 8), np.float32)
    video[1, 1, 3, 3] = np.nan
    with pytest.raises(ConfigError, match="not numbers"):
        to_uint8(video)


def test_crop_keeps_the_centre_and_the_aspect():
    """A white square in the middle of black stays a square, and the same share of the height."""
    frames = np.zeros((1, 40, 80, 3), np.uint8)
    frames[:, 10:30, 30:50] = 255
    white = resize_and_crop(frames, 80, 80)[0, 0] > 0
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (20, 59, 20, 59)


def test_shrinking_averages():
    checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
    video = resize_and_crop(np.repeat(checkerboard[None, :, :, None], 3, 3).astype(np.uint8), 8, 8)
    assert np.abs(video).max() < 0.1


def test_random_crop_moves_between_covering_and_native_pixels():
    """Pixel values are their coordinates: how fast they rise tells the scale, where they start the position."""
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[..., 0], frames[..., 1] = np.arange(128), np.arange(64)[:, None]
    rng, steps, lefts = np.random.default_rng(0), [], []
    for _ in range(40):
        crop = to_uint8(random_resized_crop(frames, 32, 32, rng)).astype(float)
        assert np.array_equal(crop[0], crop[1])
        steps.append((crop[0, 16, 28, 0] - crop[0, 16, 4, 0]) / 24)
        lefts.append(crop[0, 16, 0, 0])
    assert 0.95 < min(steps) < 1.2 and 1.8 < max(steps) < 2.05  # one to two source pixels per pixel
    assert min(lefts) < 20 and max(lefts) > 60


def test_random_crop_of_a_small_clip_only_covers():
    frames = np.random.default_rng(0).integers(0, 256, (1, 20, 20, 3), np.uint8)
    assert np.array_equal(
        random_resized_crop(frames, 40, 40, np.random.default_rng(1)), resize_and_crop(frames, 40, 40)
    )


def test_clip_indices():
    assert clip_indices(10, 4) == [3, 4, 5, 6]
    assert clip_indices(10, 4, 3) == [0, 3, 6, 9]
    rng = np.random.default_rng(0)
    starts = {clip_indices(10, 4, 2, rng)[0] for _ in range(200)}
    assert starts == {0, 1, 2, 3}
    with pytest.raises(ValueError, match=r"6 frames is too short.* 7"):
        clip_indices(6, 4, 2)
