"""Normalisation and modulation kernels.

On CPU MindSpore's reductions and broadcasts are serial while its matrix products are not, so row means and broadcasts
are written as products with a constant column or row: 2-3 times faster, the same numbers to rounding.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from moviegen.device import target


class RMSNorm(nn.Cell):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis of (..., D)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.is_native = target() == "Ascend"
        self.width, self.eps = width, eps
        self.weight = Parameter(initializer("ones", (width,), ms.float32))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.is_native:
            return ops.rms_norm(x, self.weight.astype(x.dtype), self.eps)[0]
        rows = x.reshape(-1, self.width).astype(ms.float32)  # squares overflow float16
        column = ops.ones((self.width, 1), ms.float32) / self.width
        scale = 1 / ops.sqrt(ops.matmul(rows * rows, column) + self.eps)
        out = rows * ops.matmul(scale, self.weight.astype(ms.float32).reshape(1, -1))
        return out.astype(x.dtype).reshape(x.shape)


class ExpandRows(nn.Cell):
    """(B, D) -> (B, count, D), each vector repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.is_native = target() == "Ascend"

    def construct(self, vectors: ms.Tensor, count: int) -> ms.Tensor:
        batch, width = vectors.shape
        vectors = vectors.reshape(batch, 1, width)
        if self.is_native:
            return ops.broadcast_to(vectors, (batch, count, width))
        return ops.bmm(ops.ones((batch, count, 1), vectors.dtype), vectors)
