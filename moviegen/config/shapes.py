"""Sizes of clips: in frames and pixels, in latents, in tokens; and the buckets that batches are made of.

The standard library only: parameters are checked against these before anything else is loaded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from moviegen.config.networks import ConfigError

SPATIAL_COMPRESSION = 8  # of the autoencoder, along H and along W
TEMPORAL_COMPRESSION = 8  # along T
PATCH = 2  # latent pixels along H and along W that make a token
# Width : height, from the tallest to the widest: the released seven and their mirror images
ASPECT_RATIOS = (
    "9:21", "1:2", "9:16", "10:16", "3:4", "4:5", "1:1", "5:4", "4:3", "16:10", "16:9", "2:1", "21:9",
)  # fmt: skip
AREA_TOLERANCE = 0.04  # by which a bucket's area may differ from its stage's
RATIO_TOLERANCE = 0.07  # and its aspect ratio from the one it is named after


class Bucket(NamedTuple):
    """A shape in frames and pixels; one frame is an image."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T', H', W') of a (T, H, W) video: T' = ceil(T / 8), H' = H / 8, W' = W / 8."""
    return -(-frames // TEMPORAL_COMPRESSION), height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def visual_tokens(frames: int, height: int, width: int) -> int:
    """Tokens of a video of that many frames and pixels."""
    latent_frames, latent_height, latent_width = latent_size(frames, height, width)
    return latent_frames * (latent_height // PATCH) * (latent_width // PATCH)


def by_graph(sizes: Mapping[Bucket, int]) -> dict[tuple[int, int], list[Bucket]]:
    """Buckets by the samples of their batches and the tokens of a sample: a transformer's graph is of so many."""
    graphs: dict[tuple[int, int], list[Bucket]] = {}
    for bucket, size in sorted(sizes.items()):
        graphs.setdefault((size, visual_tokens(*bucket)), []).append(bucket)
    return graphs


def check_pixels(name: str, size: tuple[int, int], multiple: int) -> None:
    """Refuses a (H, W) whose sides are not multiples of `multiple`, and names the nearest that fits."""
    if any(side <= 0 or side % multiple for side in size):
        fixed = tuple(max(multiple, side // multiple * multiple) for side in size)
        raise ValueError(f"{name} {size[0]}x{size[1]} is not divisible by {multiple}: use {fixed[0]}x{fixed[1]}")


def check_tables(
    name: str, frames: int, size: tuple[int, int], tables: tuple[int, int, int], owner: str = "model.max_size"
) -> None:
    """Refuses a video of more patches than the position tables (T, H, W) have rows; `owner` is what has the tables."""
    latent = latent_size(frames, *size)
    patches = (latent[0], latent[1] // PATCH, latent[2] // PATCH)
    if any(need > have for need, have in zip(patches, tables, strict=True)):
        raise ConfigError(
            f"{name}: a {frames}x{size[0]}x{size[1]} video needs position tables of {patches} patches, "
            f"{owner} has {tables}"
        )


def make_buckets(size: tuple[int, int], lengths: Iterable[int], ratios: Iterable[str], multiple: int) -> list[Bucket]:
    """Every length at every aspect ratio, sorted; ratios of one size are one bucket.

    Args:
        size: (H, W) whose area the others have, as nearly as few token counts allow; see `bucket_sizes`.
        ratios: of ASPECT_RATIOS; none: just `size`.
        multiple: all sides are multiples of it.
    """
    sizes = set(bucket_sizes(size, tuple(ratios), multiple).values()) or {size}
    return sorted(Bucket(frames, *pixels) for frames in set(lengths) for pixels in sizes)


@cache
def bucket_sizes(size: tuple[int, int], ratios: tuple[str, ...], multiple: int) -> dict[str, tuple[int, int]]:
    """(H, W) of each aspect ratio, as many as can be of one area: a graph is compiled for a number of tokens.

    A ratio may be any size within AREA_TOLERANCE of the area and RATIO_TOLERANCE of the ratio, which is at most so much
    that is cropped. Areas are taken one after the other: first the size's own, then always that of most ratios that are
    left, and of such the nearest. Of a ratio's sizes of the area it is the one of the nearest ratio. A ratio and its
    mirror image get mirrored sizes.
    """
    area = size[0] * size[1]
    left = {_short_and_long(ratio): _candidates(area, _short_and_long(ratio), multiple) for ratio in ratios}
    chosen: dict[tuple[int, int], tuple[int, int]] = {}
    while left:
        ratios_of = Counter(found for sizes in left.values() for found in {short * long for short, long in sizes})
        best = area if area in ratios_of else min(ratios_of, key=lambda one: (-ratios_of[one], abs(one - area), one))
        for ratio, sizes in list(left.items()):
            if fitting := [sides for sides in sizes if sides[0] * sides[1] == best]:
                chosen[ratio] = min(fitting, key=lambda sides: _ratios_apart(sides, ratio))
                del left[ratio]
    return {ratio: _turned(chosen[_short_and_long(ratio)], ratio) for ratio in ratios}


def _candidates(area: int, ratio: tuple[int, int], multiple: int) -> set[tuple[int, int]]:
    """(short, long) sides for a ratio: those within the tolerances; where no others are, the nearest of their kind.

    That one's short side is rounded to the nearest multiple, then the long one, to keep the area rather than the ratio.
    """
    exact = math.sqrt(area * ratio[0] / ratio[1])
    nearest = _rounded(exact, multiple)
    if ratio[0] == ratio[1]:
        return {(nearest, nearest)}  # as near as any, and its own mirror image
    found = {(nearest, _rounded(area / nearest, multiple))}
    reach = math.exp((math.log1p(AREA_TOLERANCE) + math.log1p(RATIO_TOLERANCE)) / 2)  # of a side
    for short in range(_rounded(exact / reach, multiple), int(exact * reach) + multiple, multiple):
        for long in range(short, int(area * (1 + AREA_TOLERANCE) / short) + 1, multiple):
            near = _ratios_apart((short, long), ratio) <= math.log1p(RATIO_TOLERANCE)
            if near and abs(math.log(short * long / area)) <= math.log1p(AREA_TOLERANCE):
                found.add((short, long))
    return found


def _short_and_long(ratio: str) -> tuple[int, int]:
    short, long = sorted(map(int, ratio.split(":")))
    return short, long


def _turned(sides: tuple[int, int], ratio: str) -> tuple[int, int]:
    """(H, W) of the short and the long side in an aspect ratio, width : height."""
    width, height = map(int, ratio.split(":"))
    return sides if height <= width else (sides[1], sides[0])


def _ratios_apart(sides: tuple[int, int], ratio: tuple[int, int]) -> float:
    return abs(_log_ratio(*sides) - _log_ratio(*ratio))


def nearest_bucket(frames: int, height: int, width: int, buckets: Iterable[Bucket]) -> Bucket:
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
        ratio = _log_ratio(bucket.height, bucket.width)
        return abs(ratio - shape), abs(ratio)

    return min((bucket for bucket in filled if bucket.frames == filled[-1].frames), key=distance)


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _log_ratio(height: int, width: int) -> float:
    # log(width / height) would round differently for a shape and its mirror image
    return math.log(width) - math.log(height)
