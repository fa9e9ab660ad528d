"""The transformer: noisy latent, time-step and text to velocity (paper 3.1.3; original report, Architecture)."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.config import PATCH, DiTConfig
from moviegen.dit.layers import Block, FinalLayer, Linear, PositionTable, TextProjector, TimestepEmbedder
from moviegen.dit.patches import checked_size, patchify, unpatchify
from moviegen.parallel.ulysses import UlyssesSequence, WholeSequence


# 3.1.3: the backbone
class DiT(nn.Cell):
    """Predicts the velocity that moves a noisy latent towards the data.

    Args:
        sequence: how the tokens are divided over ranks; default: not at all.
        dtype: of the arithmetic; weights, inputs and the velocity are float32.
    """

    def __init__(
        self,
        config: DiTConfig,
        sequence: WholeSequence | UlyssesSequence | None = None,
        dtype: ms.Type = ms.float32,
    ) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
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
        embeddings, mask = self._split(text)
        size = self._checked_size(latent, embeddings, mask)

        # fmt: off
        tokens = patchify(latent, size)                                                    # (B, N, C*2*2)
        x = self.latent_embedder["proj"](self.sequence.shard(tokens).astype(self.dtype))   # (B, N, D)
        positions = self._positions(size, latent.shape[0])                                 # (B, N, D)
        time = self.timestep_embedder(timestep).astype(x.dtype)                            # (B, D)
        modulation = self.adaLN_modulation(time).reshape(-1, 6, self.config.width)         # (B, 6, D)
        context = self.text_projector(*embeddings)                                         # (B, M, D)
        token_mask = self.sequence.mask(latent.shape[0], tokens.shape[1])                  # (B, N) or None

        for layer in self.layers:
            x = layer(x + positions, modulation, context, mask, token_mask)                # (B, N, D)

        patches = self.sequence.join(self.final_layer(x, time).astype(latent.dtype), tokens.shape[1])
        return unpatchify(patches, size, self.config.latent_channels)                      # (B, C, T', H', W')
        # fmt: on

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
        count = len(self.config.text_widths)
        embeddings = [embedding.astype(self.dtype) for embedding in text[:count]]
        has_mask = len(text) > count and not self.config.attend_to_padding
        return embeddings, text[count] if has_mask else None

    def _checked_size(
        self, latent: ms.Tensor, embeddings: list[ms.Tensor], mask: ms.Tensor | None
    ) -> tuple[int, int, int]:
        """See `patches.checked_size`."""
        config, shapes = self.config, [embedding.shape for embedding in embeddings]
        mask_shape = None if mask is None else mask.shape
        return checked_size(
            latent.shape, shapes, mask_shape, config.latent_channels, config.text_widths, config.max_size
        )

    # 3.1.3: learned positions, factorised over T, H and W, added to the input of every block
    def _positions(self, size: tuple[int, int, int], batch: int) -> ms.Tensor:
        """This rank's part of (B, N, D): the sum of the three axes' positions, time outermost."""
        frames, height, width = size
        t = self.pos_embedding_table_t.embedding_table[:frames].reshape(frames, 1, 1, -1)
        h = self.pos_embedding_table_h.embedding_table[:height].reshape(1, height, 1, -1)
        w = self.pos_embedding_table_w.embedding_table[:width].reshape(1, 1, width, -1)
        positions = (t + h + w).reshape(1, frames * height * width, -1)
        return self.sequence.shard(ops.tile(positions, (batch, 1, 1))).astype(self.dtype)
