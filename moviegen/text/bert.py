"""BERT's encoder (arXiv 1810.04805), which many sentence encoders are, MiniLM among them; Hugging Face's names.

B captions, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from pydantic import PositiveFloat, PositiveInt

from moviegen.config import ConfigError
from moviegen.text.folders import HiddenConfig
from moviegen.text.layers import BLOCKED, LayerNorm, MixTokens, Table, gelu, gelu_tanh, linear

MODEL_TYPES = ("bert",)
ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_tanh, "relu": ops.relu}
PREFIX = "bert."  # of the encoder in a model with a head
ELSEWHERE = ("pooler.", "cls.")  # what else a file holds
NOT_TRAINED = "embeddings.position_ids"  # 0, 1, 2, ...: older files hold it
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # as converted from TensorFlow
POSITIONS = "embeddings.position_embeddings.weight"


class BertConfig(HiddenConfig, frozen=True):
    """What the encoder reads of `config.json`; what a file leaves out has BERT's value."""

    vocab_size: PositiveInt = 30522
    hidden_size: PositiveInt = 768
    intermediate_size: PositiveInt = 3072
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    max_position_embeddings: PositiveInt = 512
    type_vocab_size: PositiveInt = 2
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    layer_norm_eps: PositiveFloat = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"

    @property
    def landmarks(self) -> dict[str, tuple[int, ...]]:
        """See `EncoderConfig`."""
        last = f"encoder.layer.{self.num_hidden_layers - 1}."
        return {
            "embeddings.word_embeddings.weight": (self.vocab_size, self.hidden_size),
            f"{last}intermediate.dense.weight": (self.intermediate_size, self.hidden_size),
        }


def weights(stored: Mapping[str, Any], config: BertConfig, length: int) -> dict[str, Any]:
    """The encoder's tensors among a file's, of positions the first `length`.

    Raises:
        ConfigError: there are fewer positions.
    """
    if length > config.max_position_embeddings:
        raise ConfigError(
            f"this BERT knows {config.max_position_embeddings} positions, and max_tokens is {length}: lower it"
        )
    names = {name: name.removeprefix(PREFIX) for name in stored}
    for old, new in OLD_NAMES.items():
        names = {name: kept.replace(old, new) for name, kept in names.items()}
    kept = {kept: stored[name] for name, kept in names.items() if not kept.startswith((*ELSEWHERE, NOT_TRAINED))}
    if POSITIONS in kept:
        kept[POSITIONS] = np.asarray(kept[POSITIONS], np.float32)[:length]
    return kept


class Embeddings(nn.Cell):
    """Tokens plus their places, all of the first of two sentences: (B, L) int32 -> (B, L, D)."""

    def __init__(self, config: BertConfig, length: int) -> None:
        super().__init__()
        self.word_embeddings = Table(config.vocab_size, config.hidden_size)
        self.position_embeddings = Table(length, config.hidden_size)
        self.token_type_embeddings = Table(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, tokens: ms.Tensor) -> ms.Tensor:
        rows = self.word_embeddings(tokens) + self.token_type_embeddings(ops.zeros_like(tokens))
        return self.LayerNorm(rows + self.position_embeddings.weight)


class Projections(nn.Cell):
    """Queries, keys and values, and the values mixed."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.query, self.key, self.value = (linear(width, width, has_bias=True) for _ in range(3))
        self.mix = MixTokens(heads, (width // heads) ** -0.5)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return self.mix(self.query(x), self.key(x), self.value(x), bias)


class Output(nn.Cell):
    """LayerNorm(x + dense(y))."""

    def __init__(self, config: BertConfig, in_width: int) -> None:
        super().__init__()
        self.dense = linear(in_width, config.hidden_size, has_bias=True)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, y: ms.Tensor, x: ms.Tensor) -> ms.Tensor:
        return self.LayerNorm(x + self.dense(y))


class Attention(nn.Cell):
    """Self-attention, its input added to it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = Projections(config)
        self.output = Output(config, config.hidden_size)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return self.output(self.self(x, bias), x)


class Intermediate(nn.Cell):
    """act(dense(x))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = linear(config.hidden_size, config.intermediate_size, has_bias=True)
        self.activation = ACTIVATIONS[config.hidden_act]

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.activation(self.dense(x))


class Layer(nn.Cell):
    """Attention, then feed-forward network, each normalised after x is added."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        x = self.attention(x, bias)
        return self.output(self.intermediate(x), x)


class Layers(nn.Cell):
    """The layers one after the other."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.CellList([Layer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        for layer in self.layer:
            x = layer(x, bias)
        return x


class BertEncoder(nn.Cell):
    """Embeddings of tokens.

    Inputs: tokens (B, L) int32, and keep (B, L) bool, False where a token is padding, which no other sees. L is
    `length`. Output: the last hidden state (B, L, D) float32, without meaning where a token is padding.
    """

    def __init__(self, config: BertConfig, length: int) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.embeddings = Embeddings(config, length)
        self.encoder = Layers(config)

    def construct(self, tokens: ms.Tensor, keep: ms.Tensor) -> ms.Tensor:
        batch, length = tokens.shape
        blocked = (1 - keep.astype(ms.float32)).reshape(batch, 1, 1, length) * BLOCKED
        bias = ops.tile(blocked, (1, self.num_heads, length, 1))
        return self.encoder(self.embeddings(tokens), bias).astype(ms.float32)
