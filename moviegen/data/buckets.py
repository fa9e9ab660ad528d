"""The shapes clips are batched in: lengths x aspect ratios, each shape of about the same area.

The standard library only: parameters are checked against these shapes before anything else is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

# Width : height, from the tallest to the widest: the released seven and their mirror images
ASPECT_RATIOS = (
    "9:21", "1:2", "9:16", "10:16", "3:4", "4:5", "1:1", "5:4", "4:3", "16:10", "16:9", "2:1", "21:9",
)  # fmt: skip


class Bucket(NamedTuple):
    """A shape in frames and pixels; one frame is an image."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def make_buckets(size: tuple[int, int], lengths: Iterable[int], ratios: Iterable[str], multiple: int) -> list[Bucket]:
    """Every length at every aspect ratio, sorted; sizes that are the same once rounded are one bucket.

    Args:
        size: (H, W) whose area the others have, as nearly as their sides allow.
        ratios: of ASPECT_RATIOS; none: just `size`.
        multiple: all sides are multiples of it.
    """
    sizes = {bucket_size(size[0] * size[1], ratio, multiple) for ratio in ratios} or {tuple(size)}
    return sorted(Bucket(frames, *pixels) for frames in set(lengths) for pixels in sizes)


def bucket_size(area: int, ratio: str, multiple: int) -> tuple[int, int]:
    """(H, W) of an aspect ratio; a ratio and its mirror image get mirrored sizes.

    The short side is rounded to the nearest multiple, then the long side, to keep the area rather than the ratio: all
    buckets cost about as much.
    """
    width, height = map(int, ratio.split(":"))
    short, long = sorted((width, height))
    short_side = _rounded(math.sqrt(area * short / long), multiple)
    long_side = short_side if short == long else _rounded(area / short_side, multiple)
    return (short_side, long_side) if height <= width else (long_side, short_side)


def nearest(frames: int, height: int, width: int, buckets: Iterable[Bucket]) -> Bucket:
    """Where a clip belongs: in the longest length it fills, and there in the nearest aspect ratio.

    Ratios differ by |log(W / H) - log(w / h)|, so portrait clips are treated as landscape ones are; of two as near, the
    squarer is taken.

    Raises:
        ValueError: the clip is shorter than every bucket.
    """
    buckets = sorted(buckets)
    filled = [bucket for bucket in buckets if bucket.frames <= frames]
    if not filled:
        lengths = ", ".join(str(length) for length in sorted({bucket.frames for bucket in buckets}))
        raise ValueError(f"a clip of {frames} frames has no bucket: there are those of {lengths or 'no'} frames")
    shape = _log_ratio(height, width)

    def distance(bucket: Bucket) -> tuple[float, float]:
        own = _log_ratio(bucket.height, bucket.width)
        return abs(own - shape), abs(own)

    return min((bucket for bucket in filled if bucket.frames == filled[-1].frames), key=distance)


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _log_ratio(height: int, width: int) -> float:
    # log(width / height) would round differently for a shape and its mirror image
    return math.log(width) - math.log(height)
