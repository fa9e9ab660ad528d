"""Layers of the Temporal Autoencoder (paper 3.1.1; original report, "Key design & implementation").

Inside the network a video is a stack of frames, (B*T, C, H, W): spatial layers see ordinary images, and a temporal
convolution sums products with neighbouring frames. So no layer ever transposes the video, and replicate padding is a
matter of which frame stands in for the missing one.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from moviegen.device.attention import Attention
from moviegen.device.video import Convolution, GroupNorm, TemporalConvolution


def unfold_time(x: ms.Tensor, num_frames: int) -> ms.Tensor:
    """(B*T, C, H, W) -> (B, T, C, H, W)."""
    return x.reshape(-1, num_frames, x.shape[1], x.shape[2], x.shape[3])


def fold_time(x: ms.Tensor) -> ms.Tensor:
    """(B, T, C, H, W) -> (B*T, C, H, W)."""
    return x.reshape(-1, x.shape[2], x.shape[3], x.shape[4])


# 3.1.1: the 1-D temporal convolution that inflates a spatial one
class TemporalConv(nn.Cell):
    """1-D convolution over time with `centric` initialisation: it starts as the identity (original report, Conv2.5d).

    Args:
        channels: C in and out.
        kernel: 3, or 1 as in the shortcut convolutions.
        stride: 2 keeps frames 0, 2, 4 ... : T -> ceil(T / 2).
        is_doubled: every frame twice before it convolves: T -> 2T.
        padding: `replicate` repeats the border frame, `zeros` puts black there.
    """

    def __init__(
        self, channels: int, kernel: int = 3, stride: int = 1, is_doubled: bool = False, padding: str = "replicate"
    ) -> None:
        super().__init__()
        centric = np.zeros((channels, channels, 1, kernel), np.float32)
        centric[np.arange(channels), np.arange(channels), 0, kernel // 2] = 1
        self.weight = Parameter(ms.Tensor(centric))
        self.bias = Parameter(initializer("zeros", (channels,), ms.float32))
        self.conv = TemporalConvolution(channels, kernel, stride, is_doubled, padding)

    def construct(self, x: ms.Tensor, num_frames: int, base: ms.Tensor | None = None) -> ms.Tensor:
        """(B*T, C, H, W) -> (B*ceil(T/stride), C, H, W), or (B*2T, C, H, W); added to `base`, where T stays."""
        return self.conv(x, self.weight, self.bias, num_frames, base)


# 3.1.1: 2-D, then 1-D (original report, Conv2.5d)
class Conv2_5D(nn.Cell):
    """A spatial convolution followed by a temporal one; the spatial one alone in an image autoencoder.

    With a `base`, base + output.
    """

    def __init__(self, in_channels: int, out_channels: int, is_temporal: bool, kernel: int = 3) -> None:
        super().__init__()
        self.conv_spat = Convolution(in_channels, out_channels, kernel)
        self.is_temporal = is_temporal
        if is_temporal:
            self.conv_temp = TemporalConv(out_channels, kernel)

    def construct(self, x: ms.Tensor, num_frames: int, base: ms.Tensor | None = None) -> ms.Tensor:
        if self.is_temporal:
            return self.conv_temp(self.conv_spat(x), num_frames, base)
        return self.conv_spat(x, base)


class SpatialDownsample(nn.Cell):
    """(N, C, H, W) -> (N, C, H/2, W/2); pads right and bottom only, as the SD3.5 VAE does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, resize="halve")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.conv(x)


# 3.1.1: temporal downsampling
class TemporalDownsample(nn.Cell):
    """T -> ceil(T / 2) by a strided convolution (paper: "strided convolution with a stride of 2")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, stride=2)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        return self.conv(x, num_frames)


class SpatialUpsample(nn.Cell):
    """(N, C, H, W) -> (N, C, 2H, 2W): nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, resize="double")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.conv(x)


# 3.1.1: temporal upsampling
class TemporalUpsample(nn.Cell):
    """T -> 2T: every frame twice, then a convolution (paper: "nearest-neighbor interpolation ... convolution")."""

    def __init__(self, channels: int, padding: str) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, is_doubled=True, padding=padding)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        return self.conv(x, num_frames)


class ResnetBlock(nn.Cell):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int, is_temporal: bool) -> None:
        super().__init__()
        self.norm1 = GroupNorm(num_groups, in_channels, has_silu=True)
        self.conv1 = Conv2_5D(in_channels, out_channels, is_temporal)
        self.norm2 = GroupNorm(num_groups, out_channels, has_silu=True)
        self.conv2 = Conv2_5D(out_channels, out_channels, is_temporal)
        self.has_projection = in_channels != out_channels
        if self.has_projection:
            self.nin_shortcut = Conv2_5D(in_channels, out_channels, is_temporal, kernel=1)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        normed, x = self.norm1.beside(x, num_frames)
        hidden = self.norm2(self.conv1(normed, num_frames), num_frames)
        if self.has_projection:
            x = self.nin_shortcut(x, num_frames)
        return self.conv2(hidden, num_frames, x)


# 3.1.1: attention within a frame
class SpatialAttention(nn.Cell):
    """Single-head attention over the positions of each frame."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups, channels)
        self.q = Convolution(channels, channels, 1)
        self.k = Convolution(channels, channels, 1)
        self.v = Convolution(channels, channels, 1)
        self.proj_out = Convolution(channels, channels, 1)
        self.attention = Attention(1, channels)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        normed, x = self.norm.beside(x, num_frames)
        mixed = self.attention(self._tokens(self.q(normed)), self._tokens(self.k(normed)), self._tokens(self.v(normed)))
        return self.proj_out(mixed.reshape(x.shape[0], -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape), x)

    def _tokens(self, x: ms.Tensor) -> ms.Tensor:
        """(N, C, H, W) -> (N, H*W, 1, C)."""
        return x.reshape(x.shape[0], x.shape[1], -1).swapaxes(1, 2).expand_dims(2)


class Projection(nn.Dense):
    """x W^T + b of float32 weights in the type of x (..., in)."""

    def __init__(self, channels: int, start: str | None = None) -> None:
        super().__init__(channels, channels, weight_init=start, bias_init=start)
        self.cast = ops.Cast()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        rows = self.matmul(x.reshape(-1, x.shape[-1]), self.cast(self.weight, x.dtype))
        return self.bias_add(rows, self.cast(self.bias, x.dtype)).reshape(*x.shape[:-1], self.out_channels)


# 3.1.1: attention over the frames of a position
class TemporalAttention(nn.Cell):
    """Single-head attention over the frames at each position; starts as the identity (zero output projection)."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(num_groups, channels)
        self.to_q = Projection(channels)
        self.to_k = Projection(channels)
        self.to_v = Projection(channels)
        self.proj_out = Projection(channels, "zeros")
        self.attention = Attention(1, channels)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        _, channels, height, width = x.shape
        normed, x = self.norm.beside(x, num_frames)
        video = unfold_time(normed, num_frames).transpose(0, 3, 4, 1, 2)
        tokens = video.reshape(-1, num_frames, 1, channels)
        mixed = self.proj_out(self.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)))
        mixed = mixed.reshape(-1, height, width, num_frames, channels).transpose(0, 3, 4, 1, 2)
        return x + fold_time(mixed)
