"""95 % intervals of means over clips and of shares.

Clips cut from one source video resemble each other: ten of them say less than ten clips of ten videos. So the
independent unit is the source video, not the clip.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

LEVEL = 0.95


def mean_and_half_width(values: np.ndarray, sources: np.ndarray) -> tuple[float, float | None]:
    r"""The mean over clips, and half the width of its interval by Student's t over source videos.

    The mean is a ratio, of the sum of the values to the number of clips, and both are drawn video by video. Its
    variance is that of the linearised ratio (Cochran, Sampling Techniques, 1977, chapter 9A):
    G / (G - 1) \sum_g e_g^2 / n^2, with G videos, n clips, and e_g the sum over a video's clips of value - mean. t has
    G - 1 degrees of freedom. With one clip a video this is the textbook's interval of a mean.

    Args:
        values: one a clip, (n,).
        sources: which video each is of, (n,).

    Returns:
        (mean, half width); None for the width where all clips are of one video, whose spread nobody knows.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} values, {np.isfinite(values).sum()} of them finite, have no mean")
    mean = values.mean()
    names, of_video = np.unique(sources, return_inverse=True)
    if len(names) == 1:
        return float(mean), None
    errors = np.bincount(of_video, values - mean)
    error = np.sqrt(len(names) / (len(names) - 1) * (errors**2).sum()) / len(values)
    return float(mean), float(stats.t.ppf((1 + LEVEL) / 2, len(names) - 1) * error)


def share_interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's interval of a share, (low, high) in [0, 1]; unlike the normal one not a point at 0 or all hits."""
    interval = stats.binomtest(hits, trials).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
