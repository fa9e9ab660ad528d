"""The text tower of CLIP (arXiv 2103.00020), which MetaCLIP's is; parameters have Hugging Face's names.

B captions, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from pydantic import PositiveFloat, PositiveInt

from moviegen.text.folders import HiddenConfig
from moviegen.text.layers import BLOCKED, LayerNorm, MixTokens, Table, gelu, linear, quick_gelu

MODEL_TYPES = ("clip", "clip_text_model", "metaclip_2", "metaclip_2_text_model")  # towers of the same layout
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}
PREFIX = "text_model."  # of the tower in a whole CLIP; transformers 5 leaves it out of a tower alone
ELSEWHERE = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")  # what else a whole CLIP holds
NOT_TRAINED = "embeddings.position_ids"  # 0, 1, 2, ...: older files hold it
POSITIONS = "embeddings.position_embedding.weight"


class ClipConfig(HiddenConfig, frozen=True):
    """What the tower reads of `config.json` or of its `text_config`; what a file leaves out has CLIP's value."""

    vocab_size: PositiveInt = 49408
    hidden_size: PositiveInt = 512
    intermediate_size: PositiveInt = 2048
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 8
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: PositiveFloat = 1e-5

    @property
    def landmarks(self) -> dict[str, tuple[int, ...]]:
        """See `EncoderConfig`."""
        return {
            "embeddings.token_embedding.weight": (self.vocab_size, self.hidden_size),
            f"encoder.layers.{self.num_hidden_layers - 1}.mlp.fc1.weight": (self.intermediate_size, self.hidden_size),
        }


def weights(stored: Mapping[str, Any], config: ClipConfig, length: int) -> dict[str, Any]:
    """The tower's tensors among a file's, its positions stretched to `length`."""
    kept = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if not name.startswith(ELSEWHERE)}
    kept.pop(NOT_TRAINED, None)
    if POSITIONS in kept:
        kept[POSITIONS] = stretch(np.asarray(kept[POSITIONS], np.float32), length)
    return kept


def stretch(positions: np.ndarray, length: int) -> np.ndarray:
    """A position table (P, D) interpolated linearly to (L, D), both its ends kept; its first rows where P >= L."""
    rows = len(positions)
    if rows >= length:
        return positions[:length]
    places = np.linspace(0, rows - 1, length)
    columns = [np.interp(places, np.arange(rows), column) for column in positions.T]
    return np.stack(columns, 1).astype(positions.dtype)


class Attention(nn.Cell):
    """Self-attention with biases on all four projections."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (linear(width, width, has_bias=True) for _ in range(4))
        self.mix = MixTokens(heads, (width // heads) ** -0.5)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        """x (B, L, D) and bias (B, heads, L, L) -> (B, L, D)."""
        return self.out_proj(self.mix(self.q_proj(x), self.k_proj(x), self.v_proj(x), bias))


class MLP(nn.Cell):
    """fc2(act(fc1(x)))."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.fc1 = linear(config.hidden_size, config.intermediate_size, has_bias=True)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc2 = linear(config.intermediate_size, config.hidden_size, has_bias=True)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Cell):
    """Attention, then feed-forward network, each of the normalised x and added to it."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), bias)
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Cell):
    """Tokens plus their places: (B, L) int32 -> (B, L, D)."""

    def __init__(self, config: ClipConfig, length: int) -> None:
        super().__init__()
        self.token_embedding = Table(config.vocab_size, config.hidden_size)
        self.position_embedding = Table(length, config.hidden_size)

    def construct(self, tokens: ms.Tensor) -> ms.Tensor:
        return self.token_embedding(tokens) + self.position_embedding.weight


class Layers(nn.Cell):
    """The layers one after the other."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.CellList([Layer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        for layer in self.layers:
            x = layer(x, bias)
        return x


class ClipTextTower(nn.Cell):
    """Embeddings of tokens.

    Inputs: tokens (B, L) int32, and keep (B, L) bool, which is not looked at: a token sees only those before it, and
    padding comes last. L is `length`. Output: the last hidden state (B, L, D) float32 after the last norm, without
    meaning where a token is padding.
    """

    def __init__(self, config: ClipConfig, length: int) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.embeddings = Embeddings(config, length)
        self.encoder = Layers(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.causal = ms.Tensor(np.triu(np.full((1, 1, length, length), BLOCKED, np.float32), 1))

    def construct(self, tokens: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        bias = ops.tile(self.causal, (tokens.shape[0], self.num_heads, 1, 1))
        return self.final_layer_norm(self.encoder(self.embeddings(tokens), bias)).astype(ms.float32)
