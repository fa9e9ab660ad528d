"""Tiles (paper 3.1.1): clips of any length and size, on a card in memory that grows with neither.

A clip is encoded in tiles of 32 frames that do not overlap, and decoded in tiles of 32 that overlap by 16; in space
tiles overlap in both directions, encoded or decoded. Where tiles overlap each fades in over those before it with a
linear ramp: weights sum to one everywhere. Group norm and attention look at a whole tile, so a tiled result is not the
whole one to the last digit; through layers that see only neighbours it is, away from the borders of the tiles.

A card holds a tile. The host blends, and holds the frames that are not final yet: as many as a tile has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import mindspore as ms
import numpy as np

from moviegen.config import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, Span, Tiling
from moviegen.config.tiling import scaled

Encode = Callable[[ms.Tensor], tuple[ms.Tensor, ms.Tensor]]
Decode = Callable[[ms.Tensor], ms.Tensor]
Window = Callable[[slice, slice], np.ndarray]  # rows and columns of a window of frames: (B, 3, t, h, w) in [-1, 1]


class Latent(Protocol):
    """A latent (B, C, T', H', W') of which some frames are asked for at a time: an array, or what lies in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, place: tuple[slice, slice, slice], /) -> np.ndarray: ...


class Place(NamedTuple):
    """Where a tile lies in a frame: in pixels and in latent pixels, and its weights where it is drawn, (h, w)."""

    pixels: tuple[slice, slice]
    latent: tuple[slice, slice]
    weight: np.ndarray


# 3.1.1: tiling of the encoder
def encode_tiles(
    encode: Encode, windows: Iterable[Window], size: tuple[int, int], tiling: Tiling
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean and log-variance of a video that comes in windows of frames, of one window after the other.

    Args:
        encode: `tae.model.Encode`.
        windows: as long as `tiling.encoded` says.
        size: H, W in pixels.

    Returns:
        an iterator of two (B, C, ceil(t/8), H/8, W/8), which blends a tile's log-variance as it does its mean.
    """
    latent_size = (size[0] // SPATIAL_COMPRESSION, size[1] // SPATIAL_COMPRESSION)
    covered = places(*latent_size, tiling, drawn=1)
    # no loop, which would keep a window while it asks for the next
    return map(partial(_encoded, encode, covered, latent_size), windows)


def _encoded(
    encode: Encode, covered: list[Place], latent_size: tuple[int, int], window: Window
) -> tuple[np.ndarray, np.ndarray]:
    moments: list[np.ndarray] = []
    for place in covered:
        tile = encode(ms.Tensor(np.ascontiguousarray(window(*place.pixels))))
        parts = [moment.asnumpy() for moment in tile]
        moments = moments or [np.zeros((*part.shape[:-2], *latent_size), part.dtype) for part in parts]
        for whole, part in zip(moments, parts, strict=True):
            whole[(..., *place.latent)] += place.weight.astype(part.dtype) * part
    mean, logvar = moments
    return mean, logvar


# 3.1.1: tiling of the decoder
def decode_tiles(decode: Decode, latent: Latent, num_frames: int, tiling: Tiling) -> Iterator[np.ndarray]:
    """A video frame by frame, each as soon as no tile that is still to come has a part in it.

    Args:
        decode: `tae.model.Decode` of all frames: (B, C, t', h', w') -> (B, 3, 8t', 8h', 8w').
        latent: (B, C, T', H', W').
        num_frames: T, at most 8 T'; the rest is spurious and dropped.

    Yields:
        (B, 3, 1, H, W), T times.

    Raises:
        ValueError: the latent is too short.
    """
    batch, _, length, height, width = latent.shape
    if not 0 < num_frames <= length * TEMPORAL_COMPRESSION:
        raise ValueError(f"{length} latent frames cannot be decoded to {num_frames} frames")
    in_time = tiling.decoded(-(-num_frames // TEMPORAL_COMPRESSION))
    in_frames = scaled(in_time, TEMPORAL_COMPRESSION)
    following = [start for start, _ in in_frames[1:]] + [num_frames]
    covered = places(height, width, tiling, drawn=SPATIAL_COMPRESSION)
    size = (SPATIAL_COMPRESSION * height, SPATIAL_COMPRESSION * width)
    pending: deque[np.ndarray] = deque()  # from the first frame that is not final, (B, 3, H, W) each
    for span, (start, _), weights, next_start in zip(in_time, in_frames, fades(in_frames), following, strict=True):
        window = latent[:, :, slice(*span)]
        for place in covered:
            part = np.ascontiguousarray(window[(..., *place.latent)])
            tile = decode(ms.Tensor(part)).asnumpy()
            missing = len(weights) - len(pending)
            pending.extend(np.zeros((batch, 3, *size), tile.dtype) for _ in range(missing))
            for number, (frame, weight) in enumerate(zip(pending, weights, strict=True)):
                frame[(..., *place.pixels)] += (weight * place.weight).astype(tile.dtype) * tile[:, :, number]
        for _ in range(start, next_start):
            yield pending.popleft()[:, :, None]


def places(height: int, width: int, tiling: Tiling, drawn: int) -> list[Place]:
    """The tiles of a latent frame of that height and width, row by row.

    Args:
        drawn: places along a side that a latent pixel has where tiles are blended: 1 in a latent, 8 in a frame.
    """
    rows, columns = (_along(covered, drawn) for covered in tiling.cut(height, width))
    return [
        Place((row.pixels, column.pixels), (row.latent, column.latent), row.weights[:, None] * column.weights)
        for row in rows
        for column in columns
    ]


class _Side(NamedTuple):
    """A tile along one side of a frame, as `Place` has both."""

    pixels: slice
    latent: slice
    weights: np.ndarray


def _along(covered: Sequence[Span], drawn: int) -> list[_Side]:
    pixels, weights = scaled(covered, SPATIAL_COMPRESSION), fades(scaled(covered, drawn))
    return [
        _Side(slice(*pixel), slice(*span), fade) for pixel, span, fade in zip(pixels, covered, weights, strict=True)
    ]


# 3.1.1: the linear blend of tiles that overlap
def fades(covered: Sequence[Span]) -> list[np.ndarray]:
    """How much each tile weighs at each of its places: together 1 at each place that is covered.

    A tile rises linearly over all that it shares with the one before, and what lies below it falls as much.
    """
    weights: list[np.ndarray] = []
    reached = 0
    for start, stop in covered:
        shared = max(0, reached - start)
        rise = np.ones(stop - start)
        rise[:shared] = np.arange(1, shared + 1) / (shared + 1)
        for (earlier, _), below in zip(covered, weights, strict=False):
            below[start - earlier :] *= 1 - rise[: max(0, len(below) - (start - earlier))]
        weights.append(rise)
        reached = stop
    return weights
