"""The autoencoder's layers over stacks of frames (B*T, C, H, W): convolution in space and in time, group norm.

Each has two forms: compiled operators (`operators.cpp`) for float32 on CPU, and MindSpore's own, of which group norm
has one for cards. All compute in their input's type; weights, and the statistics of norms, are float32.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from moviegen.device import compiled, target
from moviegen.device.video_operators import (
    CompiledGroupNorm,
    Linear,
    Mixing,
    MixingOnto,
    Shape,
    SharedGroupNorm,
    filled,
)


class Convolution(nn.Conv2d):
    """A convolution in space with the weights of `nn.Conv2d`.

    Args:
        kernel: 3 or 1, padded so that H and W stay.
        resize: with kernel 3, `halve` keeps every other position and pads right and bottom only (the SD3.5 VAE);
            `double` repeats every pixel in both directions before it convolves (nearest neighbour).

    Inputs: (N, C, H, W), and what to add to the output, if anything.
    Output: (N, O, H, W), or with half or twice H and W.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, resize: str = "", bias_init: str | None = "zeros"
    ) -> None:
        is_halved = resize == "halve"
        padding = (0, 1, 0, 1) if is_halved else (kernel - 1) // 2
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride=2 if is_halved else 1,
            pad_mode="pad",
            padding=padding,
            has_bias=True,
            bias_init=bias_init,
        )
        self.is_doubled = resize == "double"
        self.cast = ops.Cast()
        self.is_compiled = compiled.is_compiled()
        if self.is_compiled:
            operator = {"": "convolution", "halve": "convolution_down", "double": "convolution_up"}[resize]
            self.linear = Linear(operator, _convolved(resize))
            self.mixing = Mixing("channel_mix")
            self.mixing_onto = MixingOnto("channel_mix", self.mixing)

    def construct(self, x: ms.Tensor, base: ms.Tensor | None = None) -> ms.Tensor:
        if self.is_compiled and x.dtype == ms.float32 and self.weight.shape[2] == 1:
            if base is None:
                return self.mixing(x, self.weight, self.bias, filled(1, 0.0))
            return self.mixing_onto(x, self.weight, self.bias, base, filled(1, 0.0))
        out = self._convolve(x)
        return out if base is None else base + out

    def _convolve(self, x: ms.Tensor) -> ms.Tensor:
        if self.is_compiled and x.dtype == ms.float32:
            return self.linear(x, self.weight, self.bias)
        if self.is_doubled:
            x = ops.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")
        return self.bias_add(self.conv2d(x, self.cast(self.weight, x.dtype)), self.cast(self.bias, x.dtype))


def _convolved(resize: str) -> Callable[[Shape, Shape], Shape]:
    """The shape of a convolution's output from those of x and the weight."""

    def shape(x: Shape, weight: Shape) -> Shape:
        height, width = x[2:]
        if resize == "halve":
            height, width = height // 2, width // 2
        if resize == "double":
            height, width = 2 * height, 2 * width
        return (x[0], weight[0], height, width)

    return shape


class TemporalConvolution(nn.Cell):
    """A convolution over time.

    Args:
        channels: C in and out.
        kernel: 3 or 1.
        stride: with kernel 3, 2 keeps frames 0, 2, 4 ... : T -> ceil(T / 2).
        is_doubled: with kernel 3, every frame twice before it convolves: T -> 2T.
        padding: `replicate` repeats the border frame, `zeros` puts black there.

    Inputs: x (B*T, C, H, W), weight (C, C, 1, kernel), bias (C,), T, and, where T stays, what to add to the output, if
    anything. Output: a stack of the same kind.
    """

    def __init__(self, channels: int, kernel: int, stride: int, is_doubled: bool, padding: str) -> None:
        super().__init__()
        self.conv = ops.Conv2D(channels, 1)
        self.kernel, self.stride, self.is_doubled, self.padding = kernel, stride, is_doubled, padding
        self.bias_add, self.cast = ops.BiasAdd(), ops.Cast()
        self.is_compiled = compiled.is_compiled()
        if self.is_compiled:
            ending = "_down" if stride == 2 else "_up" if is_doubled else ""
            ending += "_zeros" if padding == "zeros" else ""
            operator = "channel_mix" if kernel == 1 else "temporal" + ending
            self.mixing = Mixing(operator, stride, 2 if is_doubled else 1)
            self.mixing_onto = MixingOnto(operator, self.mixing)

    def construct(
        self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, num_frames: int, base: ms.Tensor | None = None
    ) -> ms.Tensor:
        if self.is_compiled and x.dtype == ms.float32:
            frames = filled(num_frames, 0.0)
            if base is None:
                return self.mixing(x, weight, bias, frames)
            return self.mixing_onto(x, weight, bias, base, frames)
        out = self._mix(x, weight, bias, num_frames)
        return out if base is None else base + out

    def _mix(self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, num_frames: int) -> ms.Tensor:
        video = x.reshape(-1, num_frames, x.shape[1], x.shape[2], x.shape[3])
        weight = self.cast(weight, x.dtype)
        if self.kernel == 1:
            out = self.conv(x, weight)
        elif self.stride == 2:
            out = self._halved(video, weight)
        else:
            out = self._neighbours(video, weight)
        return self.bias_add(out.reshape(-1, x.shape[1], x.shape[2], x.shape[3]), self.cast(bias, x.dtype))

    def _neighbours(self, video: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        """What is moved to a neighbour's place is a tap's product: backward reads the frames, and no moved copy."""
        first, middle, last = self._tap(video, weight, 0), self._tap(video, weight, 1), self._tap(video, weight, 2)
        if self.is_doubled:
            return ops.stack((self._before(first) + middle + last, first + middle + self._after(last)), 2)
        return self._before(first) + middle + self._after(last)

    def _halved(self, video: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        batch, num_frames, channels, height, width = video.shape
        if num_frames % 2:
            video = ops.concat((video, self._border(video[:, -1:])), 1)
        pairs = video.reshape(batch, -1, 2 * channels, height, width)
        even, odd = pairs[:, :, :channels], pairs[:, :, channels:]
        before = self._border(self._tap(even[:, :1], weight, 0))
        if num_frames > 2:
            before = ops.concat((before, self._tap(odd, weight, 0)[:, :-1]), 1)
        return before + self._tap(even, weight, 1) + self._tap(odd, weight, 2)

    def _tap(self, video: ms.Tensor, weight: ms.Tensor, tap: int) -> ms.Tensor:
        """Every frame's product with the matrix of one tap."""
        batch, num_frames, channels, height, width = video.shape
        frames = self.conv(video.reshape(-1, channels, height, width), weight[:, :, :, tap : tap + 1])
        return frames.reshape(batch, num_frames, channels, height, width)

    def _before(self, video: ms.Tensor) -> ms.Tensor:
        border = self._border(video[:, :1])
        return border if video.shape[1] == 1 else ops.concat((border, video[:, :-1]), 1)

    def _after(self, video: ms.Tensor) -> ms.Tensor:
        border = self._border(video[:, -1:])
        return border if video.shape[1] == 1 else ops.concat((video[:, 1:], border), 1)

    def _border(self, frame: ms.Tensor) -> ms.Tensor:
        return ops.zeros_like(frame) if self.padding == "zeros" else frame


class GroupNorm(nn.Cell):
    """Group normalisation over C / `num_groups` channels, T, H and W, and SiLU after it if `has_silu`.

    Inputs: x (B*T, C, H, W) and T. T = 1 normalises every frame by itself.
    """

    def __init__(self, num_groups: int, channels: int, eps: float = 1e-6, has_silu: bool = False) -> None:
        super().__init__()
        self.eps, self.has_silu, self.num_groups = eps, has_silu, num_groups
        self.gamma = Parameter(initializer("ones", (channels,), ms.float32))
        self.beta = Parameter(initializer("zeros", (channels,), ms.float32))
        self.is_compiled, self.is_native = compiled.is_compiled(), target() == "Ascend"
        if self.is_compiled:
            operator = "group_norm_silu" if has_silu else "group_norm"
            self.norm = CompiledGroupNorm(operator, num_groups)
            self.shared_norm = SharedGroupNorm(operator, num_groups)
        self.cast, self.silu = ops.Cast(), nn.SiLU()
        group = np.arange(channels) // (channels // num_groups)
        self.average = ms.Tensor((group[:, None] == group) * (num_groups / channels), ms.float32)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        if self.is_compiled and x.dtype == ms.float32:
            return self.norm(x, self.gamma, self.beta, filled(num_frames, self.eps))[0]
        numbers = self.cast(x, ms.float32)
        out = self._reduced(numbers, num_frames) if self.is_native else self._multiplied(numbers, num_frames)
        out = self.cast(out, x.dtype)
        return self.silu(out) if self.has_silu else out

    def beside(self, x: ms.Tensor, num_frames: int) -> tuple[ms.Tensor, ms.Tensor]:
        """The output, and x for a shortcut: with this x the two gradients are added in one pass."""
        if self.is_compiled and x.dtype == ms.float32:
            normed, _, x = self.shared_norm(x, self.gamma, self.beta, filled(num_frames, self.eps))
            return normed, x
        return self.construct(x, num_frames), x

    def _reduced(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        """On a card: reductions and broadcasts."""
        _, channels, height, width = x.shape
        video = x.reshape(-1, num_frames, self.num_groups, channels // self.num_groups, height * width)
        centred = video - video.mean((1, 3, 4), keep_dims=True)
        variance = (centred * centred).mean((1, 3, 4), keep_dims=True)
        gamma, beta = (each.reshape(1, 1, self.num_groups, -1, 1) for each in (self.gamma, self.beta))
        return (centred * (gamma / ops.sqrt(variance + self.eps)) + beta).reshape(x.shape)

    def _multiplied(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        """On CPU MindSpore's reductions and broadcasts are serial: row means and broadcasts are products here."""
        frames, channels, height, width = x.shape
        rows = x.reshape(frames * channels, height * width)
        row = ops.ones((1, height * width), x.dtype)
        centred = rows - ops.matmul(self._mean(rows, frames, num_frames), row)
        variance = self._mean(centred * centred, frames, num_frames)
        scale = ops.tile(self.gamma.reshape(-1, 1), (frames, 1)) / ops.sqrt(variance + self.eps)
        shift = ops.tile(self.beta.reshape(-1, 1), (frames, 1))
        out = centred * ops.matmul(scale, row) + ops.matmul(shift, row)
        return out.reshape(x.shape)

    def _mean(self, rows: ms.Tensor, frames: int, num_frames: int) -> ms.Tensor:
        """(B*T*C, H*W) -> (B*T*C, 1): the mean of each row's group over its whole video."""
        column = ops.ones((rows.shape[1], 1), rows.dtype) / rows.shape[1]
        mean = ops.matmul(ops.matmul(rows, column).reshape(frames, -1), self.average)
        if num_frames > 1:
            video = mean.reshape(-1, num_frames, mean.shape[1]).mean(1, keep_dims=True)
            mean = ops.tile(video, (1, num_frames, 1))
        return mean.reshape(-1, 1)
