"""Temporal tiling (paper 3.1.1): videos of any length, in memory that does not grow with it.

A clip is encoded in tiles of 32 frames that do not overlap, and decoded in tiles of 32 that overlap by 16, blended with
a linear ramp. Group norm and temporal attention look at a whole tile, so a tiled result is not the untiled one to the
last digit; through layers that see only neighbouring frames it is, away from the borders of the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import mindspore as ms
import numpy as np

from moviegen.config import TEMPORAL_COMPRESSION

TILE, OVERLAP = 32, 16  # frames

Encode = Callable[[ms.Tensor], tuple[ms.Tensor, ms.Tensor]]
Decode = Callable[[ms.Tensor], ms.Tensor]


def spans(length: int, tile: int, overlap: int = 0) -> list[tuple[int, int]]:
    """(start, stop) of tiles that cover `length`.

    Without overlap the last tile may be shorter. With overlap all have the same length, and the last starts earlier
    than its turn: one compiled graph serves every tile.

    Raises:
        ValueError: the overlap is not smaller than the tile, or a number is negative.
    """
    if not 0 <= overlap < tile or length < 1:
        raise ValueError(f"cannot cover {length} with tiles of {tile} that overlap by {overlap}")
    if length <= tile:
        return [(0, length)]
    if not overlap:
        return [(start, min(start + tile, length)) for start in range(0, length, tile)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


# 3.1.1: temporal tiling of the encoder
def encode_tiles(encode: Encode, tiles: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance of a video that comes in tiles.

    Args:
        encode: `tae.model.Encode`.
        tiles: (B, 3, t, H, W) one after the other; t a multiple of 8 in all but the last.

    Returns:
        two (B, C, ceil(T/8), H/8, W/8).
    """
    encoded = [encode(ms.Tensor(tile)) for tile in tiles]
    mean, logvar = (np.concatenate([moments.asnumpy() for moments in part], 2) for part in zip(*encoded, strict=True))
    return mean, logvar


# 3.1.1: temporal tiling of the decoder
def decode_tiles(
    decode: Decode, latent: np.ndarray, num_frames: int, tile: int = TILE, overlap: int = OVERLAP
) -> Iterator[np.ndarray]:
    """A video piece by piece; no more than a tile and its overlap is held at any time.

    Args:
        decode: `tae.model.Decode` of all frames: (B, C, t', H', W') -> (B, 3, 8t', H, W).
        latent: (B, C, T', H', W').
        num_frames: T, at most 8 T'; the rest is spurious and dropped.
        tile, overlap: in frames, multiples of 8.

    Yields:
        (B, 3, t, H, W), together T frames.

    Raises:
        ValueError: a length is not a multiple of 8, or the latent is too short.
    """
    if tile % TEMPORAL_COMPRESSION or overlap % TEMPORAL_COMPRESSION:
        raise ValueError(f"tile {tile} and overlap {overlap} must be multiples of {TEMPORAL_COMPRESSION} frames")
    if not 0 < num_frames <= latent.shape[2] * TEMPORAL_COMPRESSION:
        raise ValueError(f"{latent.shape[2]} latent frames cannot be decoded to {num_frames} frames")
    needed = -(-num_frames // TEMPORAL_COMPRESSION)
    covered = spans(needed, tile // TEMPORAL_COMPRESSION, overlap // TEMPORAL_COMPRESSION)
    following = [start * TEMPORAL_COMPRESSION for start, _ in covered[1:]] + [num_frames]
    pending, position = None, 0  # frames not yet final, and where they start
    for (start, stop), next_start in zip(covered, following, strict=True):
        frames = decode(ms.Tensor(np.ascontiguousarray(latent[:, :, start:stop]))).asnumpy()
        pending = frames if pending is None else blend(pending, frames)
        done = next_start - position
        yield pending[:, :, :done]
        pending, position = pending[:, :, done:], next_start


# 3.1.1: the linear blend of tiles that overlap
def blend(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`after` (B, C, t, H, W), its first frames faded in over `before`, all of which overlap it."""
    overlap = before.shape[2]
    ramp = (np.arange(1, overlap + 1, dtype=after.dtype) / (overlap + 1))[:, None, None]
    mixed = before + ramp * (after[:, :, :overlap] - before)
    return np.concatenate((mixed, after[:, :, overlap:]), 2)
