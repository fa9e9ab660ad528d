"""Layers by themselves, as the networks use them: what `plan --calibrate` measures how fast a machine computes.

Each is a kind of work of `plan.host.KINDS`, at sizes from small to large: how fast it is depends on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.device.attention import Attention
from moviegen.device.compiled import is_compiled
from moviegen.device.kernels import GatedSiLU, GatedSum, ModulatedRMSNorm, Product
from moviegen.device.updates import AdamWUpdate, MovingAverage, SumOfSquares, zero_moments
from moviegen.device.video import Convolution, GroupNorm, TemporalConvolution
from moviegen.device.world import World

LAYERS = 2  # of a chain, few: a call of some milliseconds is more often left alone than a long one
HEAD_WIDTH, HEADS, GROUPS, CLIP = 32, 4, 4, 4  # of attention, of group norm, frames of a clip
TENSORS, WEIGHTS = 16, 1 << 18  # that are updated, and of each of them


@dataclass(frozen=True)
class Probe:
    """One kind of layer at one size.

    Attributes:
        kind, size: see `plan.host.KINDS`.
        work: of one layer.
        layers: makes the layers of a chain.
        shapes: of what the chain takes: x, which each layer gives on to the next, and what all of them take beside it.
        gradients: whether the way back is measured too.
        output: shape of what the chain gives, where it is not x's.
    """

    kind: str
    size: float
    work: float
    layers: Callable[[], list[nn.Cell]]
    shapes: tuple[tuple[int, ...], ...]
    gradients: bool = True
    output: tuple[int, ...] = ()


# ---- layers


class _Linear(nn.Cell):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.product = Parameter(normal((width, width), width**-0.5)), Product()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.product(x, self.weight)


class _SelfAttention(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(HEADS, HEAD_WIDTH)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.attention(x, x, x)


class _OverTime(nn.Cell):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(normal((channels, channels, 1, 3), (3 * channels) ** -0.5))
        self.bias = Parameter(ops.zeros((channels,), ms.float32))
        self.conv = TemporalConvolution(channels, 3, 1, False, "replicate")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.conv(x, self.weight, self.bias, CLIP)


class _Normed(nn.Cell):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(GROUPS, channels, has_silu=True)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.norm(x, CLIP)


class _Modulated(nn.Cell):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.gated_sum = ModulatedRMSNorm(width), GatedSum()

    def construct(self, x: ms.Tensor, modulation: ms.Tensor) -> ms.Tensor:
        return self.gated_sum(x, modulation, self.norm(x, modulation, modulation))


class _Activated(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.gated_silu = GatedSiLU()

    def construct(self, x: ms.Tensor, up: ms.Tensor) -> ms.Tensor:
        return self.gated_silu(up, x)  # x passes through with a factor: it does not grow from layer to layer


class _Pooled(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.pool(x)


class _Added(nn.Cell):
    def construct(self, x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return x + y


class _Updated(nn.Cell):
    """An update of `count` tensors by a gradient that is x; gives its length."""

    def __init__(self, count: int) -> None:
        super().__init__()
        weights = {f"weight{i}": Parameter(normal((WEIGHTS,)), name=f"weight{i}") for i in range(count)}
        self.weights, self.count = ms.ParameterTuple(tuple(weights.values())), count
        self.moment1, self.moment2 = zero_moments("first", weights), zero_moments("second", weights)
        self.updates = Parameter(ms.Tensor([0.0], ms.float32), name="updates", requires_grad=False)
        self.squares, self.update = SumOfSquares(), AdamWUpdate([0.0] * count, (0.9, 0.999), 1e-8)
        self.rate, self.factor = ms.Tensor([1e-6], ms.float32), ms.Tensor([1.0], ms.float32)

    def construct(self, *gradients: ms.Tensor) -> ms.Tensor:
        norm = self.squares(gradients)
        done = self.update(self.weights, self.moment1, self.moment2, gradients, self.updates, self.rate, self.factor)
        return ops.depend(norm, done)


class _Averaged(nn.Cell):
    def __init__(self, count: int) -> None:
        super().__init__()
        weights = [Parameter(normal((WEIGHTS,)), name=f"weight{i}") for i in range(count)]
        self.average, self.updates = MovingAverage(weights, 0.9), ms.Tensor(100.0, ms.float32)

    def construct(self, factor: ms.Tensor) -> ms.Tensor:
        return self.average(factor, self.updates)


class _Reduced(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.reduce(x)


class _Gathered(nn.Cell):
    """Each rank's first part of x, gathered from all, is as large as x."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.gather, self.workers = ops.AllGather(), workers

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.gather(x[: x.shape[0] // self.workers])


# ---- probes


def probes(world: World) -> list[Probe]:
    """What is measured: in a job what the transformer needs, in one process also what the autoencoder does."""
    found = [*calling(), *transformer(), *updating()]
    return found + (exchanging(world) if world.size > 1 else autoencoder())


def calling() -> list[Probe]:
    """A graph of one operator on one number, from which what is measured after it is free; then many of them."""
    return [
        Probe("call", 1, 1, lambda: [_Added()], ((1,), (1,)), gradients=False),
        Probe("launch", 1, 1, lambda: [_Added() for _ in range(40)], ((1,), (1,)), gradients=False),
    ]


def transformer() -> list[Probe]:
    """Products and attention from small to large, and what passes over all numbers."""
    return [
        *(product(rows, width) for rows, width in ((64, 64), (256, 128), (512, 256), (1024, 384))),
        *(attention(samples, tokens) for samples, tokens in ((32, 16), (8, 64), (2, 256))),
        *(
            Probe(
                "modulation", samples * 32 * 192, samples * 32 * 192, lambda: _times(_Modulated, 192),
                ((samples, 32, 192), (samples, 1, 192)),
            ) for samples in (4, 32)
        ),
        Probe("activation", 1 << 18, 1 << 18, lambda: _times(_Activated), ((1 << 18,), (1 << 18,))),
        *(
            Probe("pass", numbers, numbers, lambda: _times(_Added), ((numbers,), (numbers,)), gradients=False)
            for numbers in (1 << 12, 1 << 18, 1 << 21)
        ),
    ]  # fmt: skip


def product(rows: int, width: int) -> Probe:
    """A linear layer of `width` in and out."""
    forward = 2 * rows * width**2
    return Probe("product", forward, 3 * forward, lambda: _times(_Linear, width), ((rows, width),))


def attention(samples: int, tokens: int) -> Probe:
    """Two products forward, and five backward: the scores once more, and the gradients of q, k, v and probabilities."""
    forward_product = 2 * samples * HEADS * tokens**2 * HEAD_WIDTH
    shape = (samples, tokens, HEADS, HEAD_WIDTH)
    return Probe("attention", tokens, 7 * forward_product, lambda: _times(_SelfAttention), (shape,))


def updating() -> list[Probe]:
    """The update of 4 million weights; of their average too, where that is no work of the host's own."""
    weights, shapes = TENSORS * WEIGHTS, ((WEIGHTS,),) * TENSORS
    update = Probe("update", weights, weights, lambda: [_Updated(TENSORS)], shapes, gradients=False)
    average = Probe("average", weights, weights, lambda: [_Averaged(TENSORS)], ((1,),), gradients=False)
    return [update, average] if is_compiled() else [update]


def autoencoder() -> list[Probe]:
    """Convolutions from few channels on many pixels to many channels on few, as levels of a network have them."""
    return [
        *(convolution(channels, side) for channels, side in ((4, 64), (16, 64), (64, 16), (128, 8))),
        *(convolution(channels, side, is_frozen=True) for channels, side in ((512, 4), (256, 8), (64, 32))),
        *(over_time(channels, side) for channels, side in ((4, 64), (16, 64), (64, 16), (128, 8))),
        *(normed(channels, side) for channels, side in ((128, 8), (16, 64))),
        pooled(32),
    ]


def convolution(channels: int, side: int, is_frozen: bool = False) -> Probe:
    """A 3 x 3 convolution of two clips; `is_frozen`: of which the weights, far more numbers than places, stay."""
    shape = (2 * CLIP, channels, side, side)
    forward = 2 * 9 * channels**2 * 2 * CLIP * side**2

    def layers() -> list[nn.Cell]:
        cell = Convolution(channels, channels)
        for parameter in cell.get_parameters() if is_frozen else ():
            parameter.requires_grad = False
        return [cell]

    kind, parts = ("frozen", 2) if is_frozen else ("spatial", 3)
    return Probe(kind, 2 * CLIP * side**2 if is_frozen else channels, parts * forward, layers, (shape,))


def over_time(channels: int, side: int) -> Probe:
    """A convolution over three frames, of two clips."""
    forward = 2 * 3 * channels**2 * 2 * CLIP * side**2
    shape = (2 * CLIP, channels, side, side)
    return Probe("temporal", channels, 3 * forward, lambda: [_OverTime(channels)], (shape,))


def normed(channels: int, side: int) -> Probe:
    """Group norm and SiLU, of two clips."""
    numbers = 2 * CLIP * channels * side**2
    return Probe("group_norm", numbers, numbers, lambda: _times(_Normed, channels), ((2 * CLIP, channels, side, side),))


def pooled(side: int) -> Probe:
    """A maximum of 2 x 2 of 64 channels."""
    numbers = 2 * CLIP * 64 * side**2
    shapes = ((2 * CLIP, 64, side, side),)
    return Probe("pooling", numbers, numbers, lambda: [_Pooled()], shapes, output=(2 * CLIP, 64, side // 2, side // 2))


def exchanging(world: World) -> list[Probe]:
    """The sum of a tensor over the workers, and one gathered from them, from small to large."""
    found = []
    for numbers in (1 << 8, 1 << 14, 1 << 18):
        size = 4 * numbers
        found.append(Probe("all_reduce", size, size, lambda: _times(_Reduced), ((numbers,),), gradients=False))
        gathers = functools.partial(_times, _Gathered, world.size)
        found.append(Probe("all_gather", size, size, gathers, ((numbers,),), gradients=False))
    return found


def _times(layer: Callable[..., nn.Cell], *arguments: Any) -> list[nn.Cell]:
    return [layer(*arguments) for _ in range(LAYERS)]


def normal(shape: tuple[int, ...], scale: float = 1.0) -> ms.Tensor:
    """Numbers of ordinary size: a processor takes far longer for those too small to be normal."""
    return ms.Tensor(scale * np.random.default_rng(0).standard_normal(shape, np.float32), ms.float32)
