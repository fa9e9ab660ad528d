"""The encoder of T5 (arXiv 1910.10683) and its kin, which UL2 and ByT5 are; parameters have Hugging Face's names.

B captions, L tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeVar

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from pydantic import PositiveFloat, PositiveInt

from moviegen.device.kernels import RMSNorm
from moviegen.text.folders import EncoderConfig
from moviegen.text.layers import BLOCKED, MixTokens, Table, gelu_tanh, linear

MODEL_TYPES = ("t5",)
ACTIVATIONS = {"relu": ops.relu, "gated-gelu": gelu_tanh, "gated-silu": ops.silu}
ELSEWHERE = ("decoder.", "lm_head.")  # what a whole T5 holds besides its encoder
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # other names of `shared.weight`
Stored = TypeVar("Stored")


class T5Config(EncoderConfig, frozen=True):
    """What the encoder reads of `config.json`; the defaults are those of files from before the key existed."""

    d_model: PositiveInt
    d_kv: PositiveInt
    d_ff: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    relative_attention_num_buckets: PositiveInt = 32
    relative_attention_max_distance: PositiveInt = 128
    layer_norm_epsilon: PositiveFloat = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu", "gated-silu"] = "relu"

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.d_model

    @property
    def landmarks(self) -> dict[str, tuple[int, ...]]:
        """See `EncoderConfig`."""
        attention, last = "encoder.block.0.layer.0.SelfAttention.", f"encoder.block.{self.num_layers - 1}.layer."
        return {
            "shared.weight": (self.vocab_size, self.d_model),
            f"{attention}relative_attention_bias.weight": (self.relative_attention_num_buckets, self.num_heads),
            f"{last}0.SelfAttention.q.weight": (self.num_heads * self.d_kv, self.d_model),
            f"{last}1.DenseReluDense.wo.weight": (self.d_model, self.d_ff),
        }


def weights(stored: Mapping[str, Stored], config: T5Config, length: int) -> dict[str, Stored]:
    """The encoder's tensors among a file's; a tied table under its one name."""
    kept = {name: tensor for name, tensor in stored.items() if not name.startswith((*ELSEWHERE, *TIED))}
    tables = [stored[name] for name in ("shared.weight", *TIED) if name in stored]
    return kept | ({"shared.weight": tables[0]} if tables else {})


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """(L, L) int32: the bucket of each column's distance from its row.

    Half of the buckets are for columns to the right. Of either half, one half is for single distances and the other
    for ranges that widen logarithmically up to `max_distance`. In float64: MindSpore's float32 logarithm on CPU puts
    distance 16 one bucket too low.
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    side = num_buckets // 2
    near, exact = np.abs(distance), side // 2
    octaves = np.log(np.maximum(near, exact) / exact) / math.log(max_distance / exact)
    far = np.minimum(exact + (octaves * (side - exact)).astype(int), side - 1)
    return (np.where(near < exact, near, far) + side * (distance > 0)).astype(np.int32)


class SelfAttention(nn.Cell):
    """Attention whose scores are not scaled; the first block's holds the position bias that all blocks add."""

    def __init__(self, config: T5Config, has_bias_table: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (linear(config.d_model, inner) for _ in range(3))
        self.o = linear(inner, config.d_model)
        self.mix = MixTokens(config.num_heads)
        if has_bias_table:
            self.relative_attention_bias = Table(config.relative_attention_num_buckets, config.num_heads)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        """x (B, L, D) and bias (B, heads, L, L) -> (B, L, D)."""
        return self.o(self.mix(self.q(x), self.k(x), self.v(x), bias))


class FeedForward(nn.Cell):
    """wo(act(wi(x))), or wo(act(wi_0(x)) * wi_1(x)) where it is gated."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.is_gated = config.feed_forward_proj.startswith("gated-")
        self.activation = ACTIVATIONS[config.feed_forward_proj]
        if self.is_gated:
            self.wi_0, self.wi_1 = (linear(config.d_model, config.d_ff) for _ in range(2))
        else:
            self.wi = linear(config.d_model, config.d_ff)
        self.wo = linear(config.d_ff, config.d_model)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.is_gated:
            return self.wo(self.activation(self.wi_0(x)) * self.wi_1(x))
        return self.wo(self.activation(self.wi(x)))


class AttentionLayer(nn.Cell):
    """x + attention of the normalised x."""

    def __init__(self, config: T5Config, has_bias_table: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, has_bias_table)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class FeedForwardLayer(nn.Cell):
    """x + feed-forward network of the normalised x."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = FeedForward(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class Block(nn.Cell):
    """Both layers."""

    def __init__(self, config: T5Config, has_bias_table: bool) -> None:
        super().__init__()
        self.layer = nn.CellList([AttentionLayer(config, has_bias_table), FeedForwardLayer(config)])

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return self.layer[1](self.layer[0](x, bias))


class Stack(nn.Cell):
    """The blocks and the last norm, for texts of `length` tokens."""

    def __init__(self, config: T5Config, length: int) -> None:
        super().__init__()
        self.block = nn.CellList([Block(config, has_bias_table=index == 0) for index in range(config.num_layers)])
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        distances = config.relative_attention_num_buckets, config.relative_attention_max_distance
        self.buckets = ms.Tensor(relative_buckets(length, *distances))

    def construct(self, x: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        batch, length = keep.shape
        places = self.block[0].layer[0].SelfAttention.relative_attention_bias(self.buckets).transpose(2, 0, 1)
        places = places.astype(ms.float32)
        padding = (1 - keep.astype(ms.float32)).reshape(batch, 1, 1, length) * BLOCKED
        bias = places.reshape(1, -1, length, length) + padding
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)


class T5Encoder(nn.Cell):
    """Embeddings of tokens.

    Inputs: tokens (B, L) int32 and keep (B, L) bool, False where a token is padding; L is `length`. Output: the last
    hidden state (B, L, D) float32, without meaning where a token is padding.
    """

    def __init__(self, config: T5Config, length: int) -> None:
        super().__init__()
        self.shared = Table(config.vocab_size, config.d_model)
        self.encoder = Stack(config, length)

    def construct(self, tokens: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        return self.encoder(self.shared(tokens), keep).astype(ms.float32)
