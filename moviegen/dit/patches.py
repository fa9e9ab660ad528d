"""Latents to tokens and back (paper 3.1.3: patches of 1 x 2 x 2), and the shapes that the transformer takes.

What takes and gives arrays here is written for NumPy's and MindSpore's alike.
"""

from __future__ import annotations

from typing import TypeVar

import mindspore as ms
import numpy as np
from mindspore import ops

from moviegen.config import PATCH

Array = TypeVar("Array", np.ndarray, ms.Tensor)
Size = tuple[int, int, int]


# 3.1.3: patches of 1 x 2 x 2
def patchify(latent: Array, size: Size) -> Array:
    """(B, C, T', H', W') -> (B, N, C * 2 * 2), time outermost; `size` is (T', H'/2, W'/2)."""
    batch, channels = latent.shape[:2]
    frames, height, width = size
    x = latent.reshape(batch, channels, frames, height, PATCH, width, PATCH)
    return x.transpose(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * PATCH * PATCH)


# 3.1.3: its counterpart after the last layer
def unpatchify(tokens: Array, size: Size, channels: int) -> Array:
    """(B, N, 2 * 2 * C) -> (B, C, T', H', W'); `size` is (T', H'/2, W'/2).

    Unlike the input's patches, the output's hold their channels innermost: the published weights do.
    """
    frames, height, width = size
    x = tokens.reshape(-1, frames, height, width, PATCH, PATCH, channels)
    return x.transpose(0, 6, 1, 2, 4, 3, 5).reshape(-1, channels, frames, height * PATCH, width * PATCH)


def channels_outermost(tokens: Array, channels: int) -> Array:
    """The output's patches (B, N, 2 * 2 * C) in the order of the input's: (B, N, C * 2 * 2)."""
    batch, count, width = tokens.shape
    return tokens.reshape(batch, count, PATCH * PATCH, channels).transpose(0, 1, 3, 2).reshape(batch, count, width)


def channels_innermost(tokens: Array, channels: int) -> Array:
    """The inverse of `channels_outermost`."""
    batch, count, width = tokens.shape
    return tokens.reshape(batch, count, channels, PATCH * PATCH).transpose(0, 1, 3, 2).reshape(batch, count, width)


def patches_of(latent: tuple[int, ...]) -> Size:
    """(T', H'/2, W'/2) of a latent's shape (..., T', H', W')."""
    frames, height, width = latent[-3:]
    return frames, height // PATCH, width // PATCH


def places(size: Size) -> np.ndarray:
    """Where each token lies: its row in the position tables of T, H and W, int32 (N, 3), time outermost."""
    return np.indices(size, np.int32).reshape(3, -1).T.copy()


def checked_patches(latent: tuple[int, ...], latent_channels: int, tables: Size) -> Size:
    """(T', H'/2, W'/2) of a latent's shape, where it fits the transformer; see `DiT.construct` for what it raises."""
    channels, _, height, width = latent[-4:]
    if channels != latent_channels or height % PATCH or width % PATCH:
        raise ValueError(f"latent of shape {tuple(latent)}: expected {latent_channels} channels, H' and W' even")
    size = patches_of(latent)
    if any(rows < patches for patches, rows in zip(size, tables, strict=True)):
        raise ValueError(f"latent of {size} patches is larger than the position tables {tuple(tables)}")
    return size


# In Python while the graph is compiled, before an operator sees the shape.
checked_size = ops.constexpr(checked_patches)


@ops.constexpr
def check_text(
    batch: int, text: list[tuple[int, ...]], mask: tuple[int, ...] | None, text_widths: tuple[int, ...]
) -> None:
    """Refuses embeddings and a mask that do not fit; see `DiT.construct`."""
    given = [tuple(shape) for shape in text]
    expected = [(batch, tokens, width) for (_, tokens, _), width in zip(text, text_widths, strict=True)]
    if given != expected:
        raise ValueError(f"text embeddings of shapes {given}: UL2's, MetaCLIP's and ByT5's are to be {expected}")
    tokens = sum(shape[1] for shape in text)
    if mask is not None and tuple(mask) != (batch, tokens):
        raise ValueError(f"masks of shape {tuple(mask)}: the embeddings' {tokens} tokens need {(batch, tokens)}")


@ops.constexpr
def places_tensor(size: Size) -> ms.Tensor:
    """`places` as a constant of the graph."""
    return ms.Tensor(places(size))
