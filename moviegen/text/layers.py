"""What text encoders are made of. B captions, L tokens, D width."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

BLOCKED = -1e9  # added to a score, it leaves a weight of exactly 0


def linear(in_width: int, out_width: int, has_bias: bool = False) -> nn.Dense:
    """A matrix to be filled from a file: drawing billions of random numbers first would take minutes."""
    return nn.Dense(in_width, out_width, has_bias=has_bias, weight_init="zeros", bias_init="zeros")


class Table(nn.Cell):
    """Rows of a learned table: int32 indices of any shape -> (*shape, D)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("zeros", (rows, width), ms.float32))

    def construct(self, indices: ms.Tensor) -> ms.Tensor:
        return ops.gather(self.weight, indices, 0)


class LayerNorm(nn.Cell):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis; `nn.LayerNorm` has other names."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (width,), ms.float32))
        self.bias = Parameter(initializer("zeros", (width,), ms.float32))
        self.norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=eps)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.norm(x, self.weight, self.bias)[0]


class MixTokens(nn.Cell):
    """softmax(q k^T * scale + bias) v, by heads.

    Inputs: q, k, v (B, L, heads * d) and bias (B, heads, L, L), in whose type the softmax is taken. Output: like q. The
    bias has the scores' full shape
    because MindSpore keeps 16 bytes an element for each addition that broadcasts on CPU, in every layer.
    """

    def __init__(self, num_heads: int, scale: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.product = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        scores = self.scores(self._heads(q) * self.scale, self._heads(k)).astype(bias.dtype)
        weights = self.softmax(scores + bias).astype(v.dtype)
        return self.product(weights, self._heads(v)).swapaxes(1, 2).reshape(q.shape)

    def _heads(self, x: ms.Tensor) -> ms.Tensor:
        """(B, L, heads * d) -> (B, heads, L, d)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).swapaxes(1, 2)


def gelu(x: ms.Tensor) -> ms.Tensor:
    """x times the normal distribution's probability of less than x."""
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: ms.Tensor) -> ms.Tensor:
    """Its approximation in T5 v1.1, `gelu_new`: x (1 + tanh(y)) / 2, which is x sigmoid(2 y).

    MindSpore's tanh on CPU is wrong by up to 1e-4, its sigmoid by 8e-7.
    """
    return x * ops.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def quick_gelu(x: ms.Tensor) -> ms.Tensor:
    """Its approximation in CLIP."""
    return x * ops.sigmoid(1.702 * x)
