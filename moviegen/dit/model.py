"""The transformer: noisy latent, time-step and text to velocity (paper 3.1.3; original report, Architecture)."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from moviegen.config import PATCH, DiTConfig
from moviegen.dit.layers import (
    Block,
    FinalLayer,
    Linear,
    PositionTable,
    TextProjector,
    TimestepEmbedder,
)
from moviegen.dit.positions import grow_positions
from moviegen.parallel.ulysses import UlyssesSequence, WholeSequence
from moviegen.weights import Arrays, assign, load_arrays, stored_tensors


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

    def construct(
        self,
        latent: ms.Tensor,
        timestep: ms.Tensor,
        ul2: ms.Tensor,
        metaclip: ms.Tensor,
        byt5: ms.Tensor,
        masks: ms.Tensor | None = None,
    ) -> ms.Tensor:
        """Velocity of the latent's shape.

        Args:
            latent: (B, C, T', H', W'), normalised; H' and W' even, no larger than the position tables.
            timestep: (B,) in [0, 1000], 1000 is noise.
            ul2, metaclip, byt5: (B, L, width) text embeddings.
            masks: (B, sum of L), False at padding tokens. None attends to all tokens, as the released implementation
                does and as `attend_to_padding` in the config makes it do whatever is passed.

        Raises:
            ValueError: the latent is larger than the position tables, or not divisible into patches; embeddings are
                of other widths, or masks of another length.
        """
        masks = None if self.config.attend_to_padding else masks
        texts, kept = (ul2.shape, metaclip.shape, byt5.shape), None if masks is None else masks.shape
        size = checked_size(
            latent.shape, texts, kept, self.config.latent_channels, self.config.text_widths, self.config.max_size
        )
        tokens = patchify(latent, size)
        batch, count = tokens.shape[0], tokens.shape[1]
        x = self.latent_embedder["proj"](self.sequence.shard(tokens).astype(self.dtype))
        positions = self.sequence.shard(ops.tile(self._positions(size), (batch, 1, 1))).astype(x.dtype)
        time = self.timestep_embedder(timestep).astype(x.dtype)
        modulation = self.adaLN_modulation(time).reshape(batch, 6, self.config.width)
        text = self.text_projector(ul2.astype(self.dtype), metaclip.astype(self.dtype), byt5.astype(self.dtype))
        token_mask = self.sequence.mask(batch, count)
        for layer in self.layers:
            x = layer(x + positions, modulation, text, masks, token_mask)
        patches = self.sequence.join(self.final_layer(x, time).astype(latent.dtype), count)
        return unpatchify(patches, size, self.config.latent_channels)

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

    def load_weights(self, path: Path | str, grow: bool = False) -> None:
        """Takes the weights of a file: ours or the published ones; `.safetensors`, MindSpore's `.ckpt`, or `.npz`.

        Args:
            grow: stretch position tables that are smaller than this transformer's: a stage starts so from the one
                before. Every row is another place then, which only training makes good.

        Raises:
            CheckpointError: the file is damaged or of another kind, its tables are larger, or names are missing,
                unexpected or of another shape; they are listed.
        """
        arrays = read_weights(Path(path))
        if grow:
            arrays = grow_positions(arrays, self.config.max_size)
        assign(dict(self.parameters_and_names()), arrays, str(path))

    def _positions(self, size: tuple[int, int, int]) -> ms.Tensor:
        """(1, N, D): the sum of the three axes' positions, time outermost."""
        frames, height, width = size
        t = self.pos_embedding_table_t.embedding_table[:frames].reshape(frames, 1, 1, -1)
        h = self.pos_embedding_table_h.embedding_table[:height].reshape(1, height, 1, -1)
        w = self.pos_embedding_table_w.embedding_table[:width].reshape(1, 1, width, -1)
        return (t + h + w).reshape(1, frames * height * width, -1)


def read_weights(path: Path) -> Arrays:
    """A file's weights by the names here; published ones lie inside a training wrapper: `network.model.layers.0...`.

    Those of a safetensors file are read one by one when they are asked for: 30B's take 117 GB, on each rank.

    Raises:
        CheckpointError: the file is damaged or of another kind.
    """
    arrays = stored_tensors(path) if path.suffix == ".safetensors" else load_arrays(path)[0]
    anchor = "latent_embedder.proj.weight"
    prefix = next((name.removesuffix(anchor) for name in arrays if name.endswith(anchor)), "")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


@ops.constexpr  # runs in Python while the graph is compiled, before any operator sees the wrong shape
def checked_size(
    latent: tuple[int, ...],
    texts: tuple[tuple[int, ...], ...],
    masks: tuple[int, ...] | None,
    latent_channels: int,
    text_widths: tuple[int, int, int],
    tables: tuple[int, int, int],
) -> tuple[int, int, int]:
    """(T', H'/2, W'/2) of a latent's shape, where all shapes fit; see `DiT.construct` for what it raises."""
    batch, channels, frames, height, width = latent
    if channels != latent_channels or height % PATCH or width % PATCH:
        raise ValueError(f"latent of shape {tuple(latent)}: wanted {latent_channels} channels, H' and W' even")
    size = (frames, height // PATCH, width // PATCH)
    if any(need > have for need, have in zip(size, tables, strict=True)):
        raise ValueError(f"latent of {size} patches is larger than the position tables {tuple(tables)}")
    found = [tuple(text) for text in texts]
    wanted = [(batch, tokens, width) for (_, tokens, _), width in zip(texts, text_widths, strict=True)]
    if found != wanted:
        raise ValueError(f"text embeddings of shapes {found}: UL2's, MetaCLIP's and ByT5's are to be {wanted}")
    tokens = sum(text[1] for text in texts)
    if masks is not None and tuple(masks) != (batch, tokens):
        raise ValueError(f"masks of shape {tuple(masks)}: the embeddings' {tokens} tokens need {(batch, tokens)}")
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
