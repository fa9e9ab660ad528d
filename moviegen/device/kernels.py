"""Normalisation and modulation kernels.

On CPU MindSpore's reductions and broadcasts are serial while its matrix products are not, so row means and broadcasts
are written as products with a constant column or row: 2-3 times faster, the same numbers to rounding.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from moviegen.device import target


class GroupNorm(nn.Cell):
    """Group normalisation of a video kept as a stack of frames, over C / `num_groups` channels, T, H and W.

    Inputs: x (B*T, C, H, W) and T. T = 1 normalises every frame by itself.
    """

    def __init__(self, num_groups: int, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = Parameter(initializer("ones", (channels,), ms.float32))
        self.beta = Parameter(initializer("zeros", (channels,), ms.float32))
        group = np.arange(channels) // (channels // num_groups)
        self.average = ms.Tensor((group[:, None] == group) * (num_groups / channels), ms.float32)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        frames, channels, height, width = x.shape
        rows = x.reshape(frames * channels, height * width)
        row = ops.ones((1, height * width), x.dtype)
        centred = rows - ops.matmul(self._mean(rows, frames, num_frames), row)
        variance = self._mean(centred * centred, frames, num_frames)
        scale = ops.tile(self.gamma.astype(x.dtype).reshape(-1, 1), (frames, 1)) / ops.sqrt(variance + self.eps)
        shift = ops.tile(self.beta.astype(x.dtype).reshape(-1, 1), (frames, 1))
        out = centred * ops.matmul(scale, row) + ops.matmul(shift, row)
        return out.reshape(x.shape)

    def _mean(self, rows: ms.Tensor, frames: int, num_frames: int) -> ms.Tensor:
        """(B*T*C, H*W) -> (B*T*C, 1): the mean of each row's group over its whole video."""
        column = ops.ones((rows.shape[1], 1), rows.dtype) / rows.shape[1]
        mean = ops.matmul(ops.matmul(rows, column).reshape(frames, -1), self.average.astype(rows.dtype))
        if num_frames > 1:
            video = mean.reshape(-1, num_frames, mean.shape[1]).mean(1, keep_dims=True)
            mean = ops.tile(video, (1, num_frames, 1))
        return mean.reshape(-1, 1)


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
