"""The transformer: noisy latent, time-step and text to velocity (paper 3.1.3; original report, Architecture)."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.config import PATCH, DiTConfig
from moviegen.dit.layers import (
    Block,
    FinalLayer,
    PositionTable,
    TextProjector,
    TimestepEmbedder,
    linear,
)


class DiT(nn.Cell):
    """Predicts the velocity that moves a noisy latent towards the data."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        patch_width = config.latent_channels * PATCH * PATCH
        self.latent_embedder = nn.CellDict({"proj": linear(patch_width, config.width)})
        self.timestep_embedder = TimestepEmbedder(config)
        self.adaLN_modulation = nn.SequentialCell(nn.SiLU(), linear(config.width, 6 * config.width))
        self.text_projector = TextProjector(config)
        self.pos_embedding_table_t = PositionTable(config.max_size[0], config.width)
        self.pos_embedding_table_h = PositionTable(config.max_size[1], config.width)
        self.pos_embedding_table_w = PositionTable(config.max_size[2], config.width)
        self.layers = nn.CellList([Block(config) for _ in range(config.num_layers)])
        self.final_layer = FinalLayer(config, patch_width)

    def construct(
        self,
        latent: ms.Tensor,
        timestep: ms.Tensor,
        ul2: ms.Tensor,
        metaclip: ms.Tensor,
        byt5: ms.Tensor,
        keep: ms.Tensor | None = None,
    ) -> ms.Tensor:
        """Velocity of the latent's shape.

        Args:
            latent: (B, C, T', H', W'), normalised; H' and W' even, no larger than the position tables.
            timestep: (B,) in [0, 1000], 1000 is noise.
            ul2, metaclip, byt5: (B, L, width) text embeddings.
            keep: (B, sum of L), False at padding tokens; None attends to all, as the released implementation does.

        Raises:
            ValueError: the latent is larger than the position tables, or not divisible into patches.
        """
        size = size_in_patches(latent.shape, self.config.latent_channels, self.config.max_size)
        x = self.latent_embedder["proj"](patchify(latent, size))
        positions = ops.tile(self._positions(size), (x.shape[0], 1, 1))
        time = self.timestep_embedder(timestep)
        modulation = self.adaLN_modulation(time).reshape(x.shape[0], 6, self.config.width)
        text = self.text_projector(ul2, metaclip, byt5)
        for layer in self.layers:
            x = layer(x + positions, modulation, text, keep)
        return unpatchify(self.final_layer(x, time), size, self.config.latent_channels)

    def _positions(self, size: tuple[int, int, int]) -> ms.Tensor:
        """(1, N, D): the sum of the three axes' positions, time outermost."""
        frames, height, width = size
        t = self.pos_embedding_table_t.embedding_table[:frames].reshape(frames, 1, 1, -1)
        h = self.pos_embedding_table_h.embedding_table[:height].reshape(1, height, 1, -1)
        w = self.pos_embedding_table_w.embedding_table[:width].reshape(1, 1, width, -1)
        return (t + h + w).reshape(1, frames * height * width, -1)


@ops.constexpr  # runs in Python while the graph is compiled, before any operator sees the wrong shape
def size_in_patches(shape: tuple[int, ...], latent_channels: int, tables: tuple[int, int, int]) -> tuple[int, int, int]:
    """(T', H'/2, W'/2) of a latent's shape; see `DiT.construct` for what it raises."""
    _, channels, frames, height, width = shape
    if channels != latent_channels or height % PATCH or width % PATCH:
        raise ValueError(f"latent of shape {tuple(shape)}: wanted {latent_channels} channels, H' and W' even")
    size = (frames, height // PATCH, width // PATCH)
    if any(need > have for need, have in zip(size, tables, strict=True)):
        raise ValueError(f"latent of {size} patches is larger than the position tables {tuple(tables)}")
    return size


def patchify(latent: ms.Tensor, size: tuple[int, int, int]) -> ms.Tensor:
    """(B, C, T', H', W') -> (B, N, C * 2 * 2), time outermost; `size` is (T', H'/2, W'/2)."""
    batch, channels = latent.shape[:2]
    frames, height, width = size
    x = latent.reshape(batch, channels, frames, height, PATCH, width, PATCH)
    return x.transpose(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * PATCH * PATCH)


def unpatchify(tokens: ms.Tensor, size: tuple[int, int, int], channels: int) -> ms.Tensor:
    """(B, N, 2 * 2 * C) -> (B, C, T', H', W'); `size` is (T', H'/2, W'/2).

    Unlike the input's patches, the output's hold their channels innermost: the published weights do.
    """
    frames, height, width = size
    x = tokens.reshape(-1, frames, height, width, PATCH, PATCH, channels)
    return x.transpose(0, 6, 1, 2, 4, 3, 5).reshape(-1, channels, frames, height * PATCH, width * PATCH)
