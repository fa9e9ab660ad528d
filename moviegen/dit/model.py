"""The transformer: noisy latent, time-step and text to velocity (paper 3.1.3; original report, Architecture)."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen.config import PATCH, DiTConfig
from moviegen.device.precision import compute_in
from moviegen.dit.layers import Block, FinalLayer, Fork, Linear, PositionTable, TextProjector, TimestepEmbedder
from moviegen.dit.patches import (
    channels_innermost,
    channels_outermost,
    check_text,
    checked_patches,
    checked_size,
    patchify,
    places,
    places_tensor,
    unpatchify,
)
from moviegen.parallel.ulysses import UlyssesSequence, WholeSequence


# 3.1.3: the backbone
class DiT(nn.Cell):
    """Predicts the velocity that moves a noisy latent towards the data.

    Args:
        sequence: how the tokens are divided over ranks; default: not at all.
        dtype: of the arithmetic, see `compute_in`; weights, inputs, the sum of the blocks' outputs and the velocity are
            float32.

    Raises:
        NoBfloat16Error: `dtype` is bfloat16, and this CPU has no such products.
    """

    def __init__(
        self,
        config: DiTConfig,
        sequence: WholeSequence | UlyssesSequence | None = None,
        dtype: ms.Type = ms.float32,
    ) -> None:
        super().__init__()
        self.config = config
        self.sequence = sequence or WholeSequence()
        patch_width = config.latent_channels * PATCH * PATCH
        self.latent_embedder = nn.CellDict({"proj": Linear(patch_width, config.width)})
        self.timestep_embedder = TimestepEmbedder(config)
        self.adaLN_modulation = nn.SequentialCell(nn.SiLU(), Linear(config.width, 6 * config.width))
        self.text_projector = TextProjector(config)
        self.pos_embedding_table_t = PositionTable(config.max_size[0], config.width)
        self.pos_embedding_table_h = PositionTable(config.max_size[1], config.width)
        self.pos_embedding_table_w = PositionTable(config.max_size[2], config.width)
        heads = config.num_heads
        self.layers = nn.CellList(
            [Block(config, self.sequence.attention(heads, config.width // heads)) for _ in range(config.num_layers)]
        )
        self.final_layer = FinalLayer(config, patch_width)
        self.fork = Fork()
        self.dtype = compute_in(self, dtype)
        for name, cell in self.cells_and_names():
            if isinstance(cell, Linear) and not name.startswith("timestep_embedder"):  # the time is embedded in float32
                cell.dtype = self.dtype

    def construct(self, latent: ms.Tensor, timestep: ms.Tensor, *text: ms.Tensor) -> ms.Tensor:
        """Velocity of the latent's shape.

        Args:
            latent: (B, C, T', H', W'), normalised; H' and W' even, no larger than the position tables.
            timestep: (B,) in [0, 1000], 1000 is noise.
            text: embeddings of UL2, MetaCLIP and ByT5, (B, L, width) each, then a mask (B, sum of L), False at padding
                tokens. Without a mask all tokens are attended to, as the released implementation does and as
                `attend_to_padding` in the config makes it do whatever mask is passed.

        Raises:
            ValueError: the latent is larger than the position tables, or not divisible into patches; embeddings are
                of other widths, or the mask of another length.
        """
        size = checked_size(latent.shape, self.config.latent_channels, self.config.max_size)
        patches = self.on_tokens(patchify(latent, size), places_tensor(size), timestep, *text)
        return unpatchify(patches, size, self.config.latent_channels)

    def on_tokens(self, tokens: ms.Tensor, places: ms.Tensor, timestep: ms.Tensor, *texts: ms.Tensor) -> ms.Tensor:
        """Velocity of a latent's tokens, with the channels of each patch innermost; see `construct`.

        A block's divided weights (ZeRO 3) are gathered while the block before it computes, and not earlier.

        Args:
            tokens: (B, N, C * 2 * 2), of `patchify`.
            places: (N, 3) int32, the row of each token in the position tables of T, H and W.

        Returns:
            (B, N, 2 * 2 * C).
        """
        embeddings, mask = self._split(texts)
        # fmt: off
        x = self.latent_embedder["proj"](self.sequence.shard(tokens).astype(self.dtype))   # (B, N, D)
        positions = self._positions(places, tokens.shape[0])                               # (B, N, D)
        time = self.timestep_embedder(timestep).astype(self.dtype)                         # (B, D)
        modulation = self.adaLN_modulation(time).reshape(-1, 6, self.config.width)         # (B, 6, D)
        context = self.text_projector(*embeddings)                                         # (B, M, D)
        token_mask = self.sequence.mask(tokens.shape[0], tokens.shape[1])                  # (B, N) or None

        x = x.astype(ms.float32)
        before = self._moment(x)
        for layer in self.layers:
            (positions, here), (context, text) = self.fork(positions), self.fork(context)
            x = x + here.astype(x.dtype)                                                   # (B, N, D)
            before, x = self._moment(x), layer(x, modulation, text, mask, token_mask, before)

        return self.sequence.join(self.final_layer(x, time).astype(tokens.dtype), tokens.shape[1])
        # fmt: on

    def by_tokens(self) -> TokenDiT:
        """The same transformer, taking tokens."""
        return TokenDiT(self)

    def recompute_blocks(self, every_nth: int, keep_attention: bool = False) -> None:
        """Forgets activations inside every n-th block after the forward pass, and computes them again on the way back.

        Args:
            every_nth: 0: none; 1: every block.
            keep_attention: attention's output is kept, as recomputing it costs most.
        """
        for block in self.layers[every_nth - 1 :: every_nth] if every_nth else ():
            block.recompute()
            if keep_attention:
                block.self_attn.attention.keep()
                block.cross_attn.attention.keep()

    def _split(self, text: tuple[ms.Tensor, ...]) -> tuple[list[ms.Tensor], ms.Tensor | None]:
        """The embeddings, in the type of the arithmetic, and the mask; see `construct`."""
        count = len(self.config.embedding_widths)
        embeddings = [embedding.astype(self.dtype) for embedding in text[:count]]
        mask = text[count] if len(text) > count and not self.config.attend_to_padding else None
        shapes, mask_shape = [embedding.shape for embedding in embeddings], None if mask is None else mask.shape
        check_text(embeddings[0].shape[0], shapes, mask_shape, self.config.embedding_widths)
        return embeddings, mask

    def _moment(self, x: ms.Tensor) -> ms.Tensor:
        """One number of x, which is there when x is, and does not keep it: what a gather waits for is kept for it."""
        return ops.slice(x, (0, 0, 0), (1, 1, 1))

    # 3.1.3: learned positions, factorised over T, H and W, added to the input of every block
    def _positions(self, places: ms.Tensor, batch: int) -> ms.Tensor:
        """This rank's part of (B, N, D): the sum of the three axes' positions."""
        own = self.sequence.shard(places.reshape(1, -1, 3)).reshape(-1, 3)
        t, h, w = own[:, 0], own[:, 1], own[:, 2]
        positions = (
            ops.gather(self.pos_embedding_table_t.embedding_table, t, 0)
            + ops.gather(self.pos_embedding_table_h.embedding_table, h, 0)
            + ops.gather(self.pos_embedding_table_w.embedding_table, w, 0)
        )
        return ops.tile(positions.reshape(1, *positions.shape), (batch, 1, 1)).astype(self.dtype)


class TokenDiT(nn.Cell):
    """The transformer on tokens, so that sizes of equally many tokens share one compiled graph.

    A batch becomes tokens and comes back on the host; patches hold their channels outermost, there and back.
    """

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def construct(self, tokens: ms.Tensor, timestep: ms.Tensor, places: ms.Tensor, *text: ms.Tensor) -> ms.Tensor:
        """tokens (B, N, C * 2 * 2), timestep (B,), places (N, 3) int32, text as `DiT` takes it -> like `tokens`."""
        velocity = self.dit.on_tokens(tokens, places, timestep, *text)
        return channels_outermost(velocity, self.dit.config.latent_channels)

    def tokens(self, latent: np.ndarray) -> np.ndarray:
        """(B, C, T', H', W') -> (B, N, C * 2 * 2)."""
        return np.ascontiguousarray(patchify(latent, self._size(latent.shape)))

    def places(self, shape: tuple[int, ...]) -> np.ndarray:
        """Of the tokens of a latent (..., T', H', W'): int32 (N, 3).

        Raises:
            ValueError: it is larger than the position tables, or not divisible into patches.
        """
        return places(self._size(shape))

    def latent(self, tokens: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of `tokens`; `shape` is the latent's."""
        channels = self.dit.config.latent_channels
        return unpatchify(channels_innermost(tokens, channels), self._size(shape), channels)

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        return checked_patches(shape, self.dit.config.latent_channels, self.dit.config.max_size)
