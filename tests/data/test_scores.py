"""Scores of clips against formulas written out here."""

import math
import warnings

import numpy as np
import pytest

from moviegen.data import scores

RNG = np.random.default_rng(0)
CLIP = RNG.integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
GREY = np.full((2, 16, 16, 3), 100, np.uint8)
HIGHEST = 10 * math.log10(255**2 * 12)  # rounding to whole levels leaves 1/12 of a squared level: 58.92 dB


def noisy(clip, amount):
    return np.clip(clip.astype(int) + RNG.integers(-amount, amount + 1, clip.shape), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


@pytest.mark.parametrize("amount", [1, 10, 100])
def test_each_frame_has_its_psnr(amount):
    other = noisy(CLIP, amount)
    np.testing.assert_allclose(scores.psnr(CLIP, other), [psnr(a, b) for a, b in zip(CLIP, other, strict=True)])


def test_psnr_of_one_level_everywhere():
    assert scores.psnr(GREY, GREY + 1) == pytest.approx(20 * math.log10(255))  # 48.13 dB
    assert scores.psnr(GREY + 1, GREY) == pytest.approx(20 * math.log10(255))  # no wrap below zero


@pytest.mark.parametrize("share", [0, 1 / 96, 1 / 12, 1 / 8])
def test_no_frame_counts_as_better_than_rounding_leaves_it(share):
    """So many of a frame's values are one level off: that share is its mean squared error."""
    off = (np.arange(GREY[0].size) < share * GREY[0].size).reshape(GREY[0].shape).astype(np.uint8)
    assert off.mean() == pytest.approx(share)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no division by zero on the way
        found = scores.psnr(GREY, GREY + off)
    assert found == pytest.approx(min(HIGHEST, 10 * math.log10(255**2 / share) if share else math.inf))


def test_a_black_frame_restored_as_black_counts_as_the_best_that_can_be_shown():
    black = np.zeros((2, 16, 16, 3), np.uint8)
    assert scores.psnr(black, black) == pytest.approx(HIGHEST)
    assert scores.ssim(black, black).tolist() == [1, 1]
    assert scores.identical(black, black) == 2


def test_identical_frames_are_counted_to_the_last_bit():
    other = CLIP.copy()
    other[1, 0, 0, 0] ^= 1
    assert scores.identical(CLIP, other) == 2
    assert scores.identical(CLIP, CLIP.copy()) == 3


def test_ssim_of_identical_clips_is_one():
    assert scores.ssim(CLIP, CLIP.copy()).tolist() == [1, 1, 1]


def test_ssim_of_flat_frames_is_the_luminance_term():
    a, b, c1 = 100.0, 150.0, (0.01 * 255) ** 2
    flat = [np.full((2, 16, 16, 3), value, np.uint8) for value in (a, b)]
    assert scores.ssim(*flat) == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_ssim_of_frames_of_one_window_is_its_formula():
    """7 x 7 frames have one window of 49 samples, unbiased variances, and are averaged over colours."""
    a, b = (RNG.integers(0, 256, (1, 7, 7, 3), dtype=np.uint8) for _ in range(2))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    colours = []
    for x, y in zip(a[0].reshape(49, 3).T.astype(float), b[0].reshape(49, 3).T.astype(float), strict=True):
        covariance = np.cov(x, y)
        luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        colours.append(luminance * (2 * covariance[0, 1] + c2) / (covariance.trace() + c2))
    assert scores.ssim(a, b) == pytest.approx(np.mean(colours))


def test_ssim_falls_with_noise():
    values = [scores.ssim(CLIP, noisy(CLIP, amount)).mean() for amount in (1, 10, 50, 200)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99
    assert values[-1] < 0.6


@pytest.mark.parametrize("measure", [scores.psnr, scores.ssim, scores.identical])
@pytest.mark.parametrize(
    ("original", "restored"),
    [(CLIP, CLIP[:2]), (CLIP, CLIP[:, :8]), (CLIP[:0], CLIP[:0]), (CLIP, CLIP / np.float32(255)), (CLIP[0], CLIP[0])],
)
def test_what_has_no_score_is_refused(measure, original, restored):
    with pytest.raises(ValueError, match="uint8"):
        measure(original, restored)


def test_frames_smaller_than_ssims_window_are_refused():
    small = CLIP[:, :6]
    with pytest.raises(ValueError, match="7x7"):
        scores.ssim(small, small)


# --- all of a clip's ---


def test_a_clips_score_is_the_mean_over_its_frames():
    # one frame off by 1, one by 10: the mean of two PSNRs, not the PSNR of the mean error; and one that is the same
    grey = np.full((3, 16, 16, 3), 100, np.uint8)
    other = grey + np.array([1, 10, 0], np.uint8)[:, None, None, None]
    found, off_by_one = scores.score(grey, other), 20 * math.log10(255)
    assert found["psnr"] == pytest.approx((off_by_one + off_by_one - 20 + HIGHEST) / 3)
    assert found["identical"] == 1
    c1 = (0.01 * 255) ** 2
    ssim = [(2 * 100 * value + c1) / (100**2 + value**2 + c1) for value in (101, 110, 100)]
    assert found["ssim"] == pytest.approx(np.mean(ssim), rel=1e-6)


def test_the_perceptual_distance_is_measured_where_it_is_given():
    other, seen = noisy(CLIP, 10), []

    def distance(original, restored):
        seen.append((original, restored))
        return 0.125

    assert scores.score(CLIP, other, distance)["lpips"] == 0.125
    ((original, restored),) = seen  # of the whole clip, once
    assert np.array_equal(original, CLIP) and np.array_equal(restored, other)
    assert scores.score(CLIP, other)["lpips"] is None
    assert set(scores.score(CLIP, other)) == {*scores.MEASURES, "identical"}
