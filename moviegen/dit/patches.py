"""Latents to tokens and back (paper 3.1.3: patches of 1 x 2 x 2), and the shapes that the transformer takes."""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from moviegen.config import PATCH


# 3.1.3: patches of 1 x 2 x 2
def patchify(latent: ms.Tensor, size: tuple[int, int, int]) -> ms.Tensor:
    """(B, C, T', H', W') -> (B, N, C * 2 * 2), time outermost; `size` is (T', H'/2, W'/2)."""
    batch, channels = latent.shape[:2]
    frames, height, width = size
    x = latent.reshape(batch, channels, frames, height, PATCH, width, PATCH)
    return x.transpose(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * PATCH * PATCH)


# 3.1.3: its counterpart after the last layer
def unpatchify(tokens: ms.Tensor, size: tuple[int, int, int], channels: int) -> ms.Tensor:
    """(B, N, 2 * 2 * C) -> (B, C, T', H', W'); `size` is (T', H'/2, W'/2).

    Unlike the input's patches, the output's hold their channels innermost: the published weights do.
    """
    frames, height, width = size
    x = tokens.reshape(-1, frames, height, width, PATCH, PATCH, channels)
    return x.transpose(0, 6, 1, 2, 4, 3, 5).reshape(-1, channels, frames, height * PATCH, width * PATCH)


@ops.constexpr  # runs in Python while the graph is compiled, before any operator sees the wrong shape
def checked_size(
    latent: tuple[int, ...],
    text: list[tuple[int, ...]],
    mask: tuple[int, ...] | None,
    latent_channels: int,
    text_widths: tuple[int, ...],
    tables: tuple[int, int, int],
) -> tuple[int, int, int]:
    """(T', H'/2, W'/2) of a latent, where the shapes of all inputs fit; see `DiT.construct` for what it raises."""
    batch, channels, frames, height, width = latent
    if channels != latent_channels or height % PATCH or width % PATCH:
        raise ValueError(f"latent of shape {tuple(latent)}: expected {latent_channels} channels, H' and W' even")
    size = (frames, height // PATCH, width // PATCH)
    if any(rows < patches for patches, rows in zip(size, tables, strict=True)):
        raise ValueError(f"latent of {size} patches is larger than the position tables {tuple(tables)}")
    given = [tuple(shape) for shape in text]
    expected = [(batch, tokens, width) for (_, tokens, _), width in zip(text, text_widths, strict=True)]
    if given != expected:
        raise ValueError(f"text embeddings of shapes {given}: UL2's, MetaCLIP's and ByT5's are to be {expected}")
    tokens = sum(shape[1] for shape in text)
    if mask is not None and tuple(mask) != (batch, tokens):
        raise ValueError(f"masks of shape {tuple(mask)}: the embeddings' {tokens} tokens need {(batch, tokens)}")
    return size
