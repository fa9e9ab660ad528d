"""Intervals against SciPy's own, written-out formulas, and how often they hold what they should."""

import math

import numpy as np
import pytest
from scipy import stats

from moviegen.data.intervals import mean_and_half_width, share_interval


def test_one_clip_a_video_gives_the_textbooks_interval():
    values = np.array([20.0, 22.0, 27.0, 31.0])
    mean, half = mean_and_half_width(values, np.array(["a", "b", "c", "d"]))
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert half == pytest.approx(3.1824 * math.sqrt(74 / 3) / 2, rel=1e-4)  # t of 3 degrees of freedom, from a table


def test_videos_of_as_many_clips_count_as_their_means():
    values, videos = np.array([[20.0, 24.0], [22.0, 22.5], [30.0, 27.0]]), np.repeat([4, 9, 7], 2)
    mean, half = mean_and_half_width(values.ravel(), videos)
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values.mean(1)))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_a_clip_that_is_there_twice_says_nothing_new():
    values, videos = np.array([20.0, 22.0, 27.0, 31.0]), np.arange(4)
    assert mean_and_half_width(np.tile(values, 10), np.tile(videos, 10)) == pytest.approx(
        mean_and_half_width(values, videos)
    )


def test_the_mean_is_over_clips_also_where_videos_have_more_or_fewer():
    mean, half = mean_and_half_width(np.array([10.0, 10.0, 10.0, 30.0]), np.array([1, 1, 1, 2]))
    assert mean == 15
    # residuals of the two videos: -15 and 15; 2/1 x 450 / 16, and t of one degree of freedom
    assert half == pytest.approx(12.7062 * math.sqrt(2 * 450 / 16), rel=1e-4)


def test_equal_values_have_an_interval_of_zero():
    assert mean_and_half_width(np.full(6, 5.0), np.repeat([1, 2, 3], 2)) == (5, 0)


@pytest.mark.parametrize("clips", [1, 5])
def test_one_video_has_no_interval(clips):
    assert mean_and_half_width(np.arange(clips, dtype=float), np.zeros(clips)) == ((clips - 1) / 2, None)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match="have no mean"):
        mean_and_half_width(np.array(values), np.arange(len(values)))


@pytest.mark.parametrize("videos", [5, 25])
def test_the_interval_holds_the_mean_nineteen_times_in_twenty(videos):
    """Four to seven clips of a video share most of what is special of them, as UCF-101's do: an interval over clips
    would hold the mean little more than every second time."""
    rng, held = np.random.default_rng(0), []
    for _ in range(1000):
        of = np.repeat(np.arange(videos), rng.integers(4, 8, videos))
        values = 30 + 4 * rng.standard_normal(videos)[of] + rng.standard_normal(len(of))
        mean, half = mean_and_half_width(values, of)
        held.append(abs(mean - 30) <= half)
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)  # three standard deviations of a thousand


@pytest.mark.parametrize(("hits", "trials"), [(0, 12), (11, 24), (24, 24)])
def test_the_interval_of_a_share_is_wilsons(hits, trials):
    z, share = 1.959964, hits / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    assert share_interval(hits, trials) == pytest.approx((centre - half, centre + half), abs=1e-6)
