"""Sizes of clips: in frames and pixels, in latents, in tokens; and the buckets that batches are made of.

The standard library only: parameters are checked against these before anything else is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from moviegen.config.networks import ConfigError

SPATIAL_COMPRESSION = 8  # of the autoencoder, along H and along W
TEMPORAL_COMPRESSION = 8  # along T
PATCH = 2  # latent pixels along H and along W that make a token
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


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T', H', W') of a (T, H, W) video: T' = ceil(T / 8), H' = H / 8, W' = W / 8."""
    return -(-frames // TEMPORAL_COMPRESSION), height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def visual_tokens(frames: int, height: int, width: int) -> int:
    """Tokens of a video of that many frames and pixels."""
    latent_frames, latent_height, latent_width = latent_size(frames, height, width)
    return latent_frames * (latent_height // PATCH) * (latent_width // PATCH)


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
    """Every length at every aspect ratio, sorted; sizes that are the same once rounded are one bucket.

    Args:
        size: (H, W) whose area the others have, as nearly as their sides allow.
        ratios: of ASPECT_RATIOS; none: just `size`.
        multiple: all sides are multiples of it.
    """
    height, width = size
    sizes = {bucket_size(height * width, ratio, multiple) for ratio in ratios} or {(height, width)}
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
