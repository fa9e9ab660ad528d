"""Layers of the transformer (paper 3.1.3): LLaMa-3 blocks with cross-attention and adaptive layer norm.

B batch, N video tokens, M text tokens, D model width.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Normal, initializer

from moviegen.config import TEXT_ENCODERS, DiTConfig
from moviegen.device.attention import Attention as AttentionKernel
from moviegen.device.kernels import GatedSiLU, GatedSum, ModulatedRMSNorm, Product, RMSNorm


class Linear(nn.Cell):
    """x W^T, without bias; initialised to keep variance unless `zero`.

    ZeRO-3 leaves a part of `weight` here, and replaces `product` by one that gathers the whole; ZeRO 1 and 2 leave it
    in `dtype`, the type of x.
    """

    dtype = ms.float32

    def __init__(self, in_width: int, out_width: int, zero: bool = False) -> None:
        super().__init__()
        start = "zeros" if zero else Normal(in_width**-0.5)
        self.weight = Parameter(initializer(start, (out_width, in_width), ms.float32))
        self.product = Product()

    def construct(self, x: ms.Tensor, before: ms.Tensor | None = None) -> ms.Tensor:
        """(..., in) -> (..., out)."""
        return self.product(x, self.weight, before)


# 3.1.3: attention over all tokens, without a causal mask
class Attention(nn.Cell):
    """Multi-head attention of tokens x (B, N, D) to a context (B, M, D).

    Args:
        kernel: takes q, k, v (B, tokens, heads, D / heads) and a mask.
    """

    def __init__(self, width: int, num_heads: int, kernel: nn.Cell) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, width // num_heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.o_proj = Linear(width, width)
        self.attention = kernel

    def construct(
        self, x: ms.Tensor, context: ms.Tensor, keep: ms.Tensor | None = None, before: ms.Tensor | None = None
    ) -> ms.Tensor:
        """`keep` (B, M): False where a context token is padding; `before`: see `Block`. Returns (B, N, D)."""
        q = self._heads(self.q_proj(x, before))
        k, v = self._heads(self.k_proj(context, before)), self._heads(self.v_proj(context, before))
        return self.o_proj(self.attention(q, k, v, keep).reshape(x.shape), before)

    def _heads(self, x: ms.Tensor) -> ms.Tensor:
        """(B, N, D) -> (B, N, heads, D / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_width)


# 3.1.3: LLaMa-3's feed-forward network
class SwiGLU(nn.Cell):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, ffn_width)
        self.up_proj = Linear(width, ffn_width)
        self.down_proj = Linear(ffn_width, width)
        self.gated_silu = GatedSiLU()

    def construct(self, x: ms.Tensor, before: ms.Tensor | None = None) -> ms.Tensor:
        return self.down_proj(self.gated_silu(self.gate_proj(x, before), self.up_proj(x, before)), before)


# 3.1.3: one block of the backbone, with cross-attention to the text
class Block(nn.Cell):
    """Self-attention and feed-forward network, each modulated and gated by the time-step, with text between them.

    Their outputs are added in float32: what bfloat16 loses of that sum is half of all that it loses (ARCHITECTURE).
    """

    def __init__(self, config: DiTConfig, self_attention: nn.Cell) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.scale_shift_table = modulation_table(6, width)
        self.input_layernorm = ModulatedRMSNorm(width, config.norm_eps)
        self.self_attn = Attention(width, heads, self_attention)
        self.cross_attn = Attention(width, heads, AttentionKernel(heads, width // heads))
        self.post_attention_layernorm = ModulatedRMSNorm(width, config.norm_eps)
        self.mlp = SwiGLU(width, config.ffn_width)
        self.gated_sum = GatedSum()
        # an operator of this cell: `astype` is a function, which a recomputed block shares with what is not recomputed
        self.cast = ops.Cast()

    def construct(
        self,
        x: ms.Tensor,
        time: ms.Tensor,
        text: ms.Tensor,
        text_mask: ms.Tensor | None,
        token_mask: ms.Tensor | None,
        before: ms.Tensor | None = None,
    ) -> ms.Tensor:
        """x (B, N, D) float32, time (B, 6, D), text (B, M, D), masks of text (B, M) and of all tokens -> like x.

        Time and text are of the arithmetic's type. Divided weights (ZeRO 3) are not gathered before `before` is there.
        """
        modulation = ops.split(time + self.scale_shift_table.astype(time.dtype), 1, 1)  # six (B, 1, D)
        normed = self.input_layernorm(self.cast(x, time.dtype), modulation[0], modulation[1])
        x = self.gated_sum(x, modulation[2], self.self_attn(normed, normed, token_mask, before))
        x = x + self.cast(self.cross_attn(self.cast(x, text.dtype), text, text_mask, before), x.dtype)
        normed = self.post_attention_layernorm(self.cast(x, time.dtype), modulation[3], modulation[4])
        return self.gated_sum(x, modulation[5], self.mlp(normed, before))


# 3.1.3: tokens back to patches
class FinalLayer(nn.Cell):
    """Tokens to patches; zero at the start, so the untrained velocity is exactly 0."""

    def __init__(self, config: DiTConfig, patch_width: int) -> None:
        super().__init__()
        self.scale_shift_table = modulation_table(2, config.width)
        self.input_layernorm = ModulatedRMSNorm(config.width, config.norm_eps)
        self.proj = Linear(config.width, patch_width, zero=True)

    def construct(self, x: ms.Tensor, time: ms.Tensor) -> ms.Tensor:
        """x (B, N, D) float32, time (B, D) of the arithmetic's type -> (B, N, patch width), of that type."""
        modulation = time.reshape(time.shape[0], 1, -1) + self.scale_shift_table.astype(time.dtype)
        shift, scale = ops.split(modulation, 1, 1)  # (B, 1, D) each
        return self.proj(self.input_layernorm(x.astype(time.dtype), shift, scale))


# 3.1.3: the time-step, which modulates every block
class TimestepEmbedder(nn.Cell):
    """Sinusoids of the time-step through two layers: (B,) in [0, 1000] -> (B, D).

    Their frequencies are computed in float32, as they are in the released implementation: a time-step of 1000 turns
    their last bits into 6e-6 of the transformer's output.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        half = config.frequency_width // 2
        exponents = -math.log(10000) * np.arange(half, dtype=np.float32) / half
        self.frequencies = ms.Tensor(np.exp(exponents)[None])
        self.mlp = nn.SequentialCell(
            Linear(config.frequency_width, config.width), nn.SiLU(), Linear(config.width, config.width)
        )

    def construct(self, timestep: ms.Tensor) -> ms.Tensor:
        angles = ops.matmul(timestep.reshape(-1, 1), self.frequencies)
        return self.mlp(ops.concat((ops.cos(angles), ops.sin(angles)), 1))


# 3.1.4: the encoders' embeddings are projected, normalised and joined
class TextProjector(nn.Cell):
    """The encoders' embeddings, each projected to the model width and normalised, joined along the tokens."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linears: list[str] = []  # by name: a list of cells would be named otherwise in the files of weights
        self.layernorms: list[str] = []
        for name, width in zip(TEXT_ENCODERS, config.text_widths, strict=True):
            if width:
                setattr(self, f"{name}_linear", Linear(width, config.width))
                setattr(self, f"{name}_layernorm", RMSNorm(config.width, config.norm_eps))
                self.linears.append(f"{name}_linear")
                self.layernorms.append(f"{name}_layernorm")

    def construct(self, *embeddings: ms.Tensor) -> ms.Tensor:
        """(B, L, width) each -> (B, M, D)."""
        projected = []
        for place in range(len(self.linears)):
            linear, layernorm = getattr(self, self.linears[place]), getattr(self, self.layernorms[place])
            projected.append(layernorm(linear(embeddings[place])))
        return ops.concat(projected, 1)


# 3.1.3: factorised learned positions, one axis
class PositionTable(nn.Cell):
    """Learned positions of one axis."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.embedding_table = Parameter(initializer(Normal(0.02), (length, width), ms.float32))


class Fork(nn.Cell):
    """What all blocks read, for one block and for those after it.

    Gradients are summed from block to block: those of a tensor that is read often would all wait for the last of them.
    """

    def construct(self, x: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        """Twice the same."""
        return x, x

    def bprop(self, x: ms.Tensor, out: tuple[ms.Tensor, ...], dout: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor]:
        return (dout[0] + dout[1],)


def modulation_table(rows: int, width: int) -> Parameter:
    """What a layer adds to the shared modulation: (1, rows, D)."""
    return Parameter(initializer(Normal(width**-0.5), (1, rows, width), ms.float32))
