"""Ways to write a temporal convolution in MindSpore: `python -m tests.bench.layouts` is the process that times them.

All take and give a stack of frames (B*T, C, H, W), as the spatial convolutions around them want it, and so pay for
their transposes; the rows "from (B, C, T, H, W)" are what a network that never leaves that layout would pay.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from moviegen import device
from moviegen.tae.layers import TemporalConv
from tests.bench import rows, serving, workers
from tests.bench.ours import finish
from tests.parity.comparing import assert_equal

BATCH, FRAMES, CHANNELS, SIDE = 1, 16, 64, 32
DIRECTIONS = ("forward", "both")  # both: forward, then backward


def repeat_borders(video: ms.Tensor) -> ms.Tensor:
    """(B, C, T, ...) -> (B, C, T + 2, ...)."""
    return ops.concat((video[:, :, :1], video, video[:, :, -1:]), 2)


class Ours(nn.Cell):
    """The sum of three taps: one compiled operator, or 1x1 convolutions of moved frames."""

    def __init__(self):
        super().__init__()
        self.conv = TemporalConv(CHANNELS)

    def construct(self, frames):
        return self.conv(frames, FRAMES)


class OneByOne(nn.Cell):
    """One 1x1 convolution over the concatenated channels of three neighbouring frames."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.zeros((CHANNELS, CHANNELS, 1, 3)), ms.float32))
        self.bias = ms.Parameter(ms.Tensor(np.zeros(CHANNELS), ms.float32))
        self.conv, self.bias_add = ops.Conv2D(CHANNELS, 1), ops.BiasAdd()

    def construct(self, frames):
        video = frames.reshape(-1, FRAMES, *frames.shape[1:])
        before, after = ops.concat((video[:, :1], video[:, :-1]), 1), ops.concat((video[:, 1:], video[:, -1:]), 1)
        taps = ops.concat((before, video, after), 2).reshape(-1, 3 * CHANNELS, *frames.shape[2:])
        weight = self.weight.transpose(0, 3, 1, 2).reshape(CHANNELS, 3 * CHANNELS, 1, 1)
        return self.bias_add(self.conv(taps, weight), self.bias)


class OverVideo(nn.Cell):
    """A convolution over (B, C, T, H, W), or with H and W as one axis."""

    def __init__(self, conv, has_one_space_axis):
        super().__init__()
        self.conv, self.has_one_space_axis = conv, has_one_space_axis

    def construct(self, video):
        batch, channels, frames, height, width = video.shape
        if self.has_one_space_axis:
            video = video.reshape(batch, channels, frames, height * width)
        return self.conv(repeat_borders(video)).reshape(batch, channels, frames, height, width)


class FromFrames(nn.Cell):
    """A network over (B, C, T, H, W), between transposes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def construct(self, frames):
        video = frames.reshape(-1, FRAMES, *frames.shape[1:]).transpose(0, 2, 1, 3, 4)
        return self.net(video).transpose(0, 2, 1, 3, 4).reshape(frames.shape)


class OverTime(nn.Cell):
    """A 1-D convolution over (B*H*W, C, T)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, pad_mode="valid", has_bias=True)

    def construct(self, frames):
        _, channels, height, width = frames.shape
        rows = frames.reshape(-1, FRAMES, channels, height, width).transpose(0, 3, 4, 2, 1)
        rows = self.conv(repeat_borders(rows.reshape(-1, channels, FRAMES)))
        return rows.reshape(-1, height, width, channels, FRAMES).transpose(0, 4, 3, 1, 2).reshape(frames.shape)


class Gradients(nn.Cell):
    """Of the input and the weights, for a given gradient of the output."""

    def __init__(self, net):
        super().__init__()
        self.net, self.weights = net, ms.ParameterTuple(net.trainable_params())
        self.gradients = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)

    def construct(self, x, dout):
        return self.gradients(self.net, self.weights)(x, dout)


def conv2d() -> nn.Cell:
    return OverVideo(nn.Conv2d(CHANNELS, CHANNELS, (3, 1), pad_mode="valid", has_bias=True), has_one_space_axis=True)


def conv3d() -> nn.Cell:
    return OverVideo(nn.Conv3d(CHANNELS, CHANNELS, (3, 1, 1), pad_mode="valid", has_bias=True), False)


LAYOUTS = {
    "sum of three taps (ours)": Ours,
    "1x1 over neighbours": OneByOne,
    "Conv2d (3, 1)": lambda: FromFrames(conv2d()),
    "Conv2d (3, 1), from (B, C, T, H, W)": conv2d,
    "Conv3d (3, 1, 1)": lambda: FromFrames(conv3d()),
    "Conv3d (3, 1, 1), from (B, C, T, H, W)": conv3d,
    "Conv1d over (B*H*W, C, T)": OverTime,
}


def takes_frames(layout: str) -> bool:
    return not layout.endswith("from (B, C, T, H, W)")


def fixed(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_video(frames: np.ndarray) -> np.ndarray:
    """(B*T, C, H, W) -> (B, C, T, H, W)."""
    return np.ascontiguousarray(frames.reshape(BATCH, FRAMES, *frames.shape[1:]).swapaxes(1, 2))


def set_up(layout: str) -> tuple[nn.Cell, Gradients, list[np.ndarray]]:
    """The network with weights that are the same for all, its gradients, and an input and an output's gradient."""
    net = LAYOUTS[layout]()
    weight, bias = net.trainable_params()
    weight.set_data(ms.Tensor(fixed(0, *weight.shape) / np.sqrt(3 * CHANNELS)))  # the axes differ, the order does not
    bias.set_data(ms.Tensor(fixed(1, CHANNELS)))
    frames = [fixed(seed, BATCH * FRAMES, CHANNELS, SIDE, SIDE) for seed in (2, 3)]
    return net, Gradients(net), frames if takes_frames(layout) else [as_video(array) for array in frames]


def results(layout: str) -> list[np.ndarray]:
    """The output and the gradients of input, weight and bias, comparable between layouts."""
    net, gradients, (x, dout) = set_up(layout)
    out = net(ms.Tensor(x)).asnumpy()
    (dx,), (dweight, dbias) = gradients(ms.Tensor(x), ms.Tensor(dout))
    maps = [out, dx.asnumpy()]
    if takes_frames(layout):
        maps = [as_video(array) for array in maps]
    return [*maps, dweight.asnumpy().reshape(CHANNELS, CHANNELS, 3), dbias.asnumpy()]


@functools.cache
def check(layout: str) -> None:
    """Raises AssertionError if a layout is not equal to ours."""
    for one, ours in zip(results(layout), results(next(iter(LAYOUTS))), strict=True):
        assert_equal(one, ours)


def build(layout: str, direction: str) -> serving.Work:
    """One layout's forward pass, or both passes, once it is shown to be equal to ours."""
    check(layout)
    net, gradients, (x, dout) = set_up(layout)
    x, dout = ms.Tensor(x), ms.Tensor(dout)
    work = (lambda: net(x)) if direction == "forward" else (lambda: gradients(x, dout))
    return lambda: finish(work())


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each layout."""
    found: dict[str, dict[str, Any]] = {layout: {"layout": layout} for layout in LAYOUTS}
    calls = {layout: {} for layout in LAYOUTS}
    with (
        workers.Worker("tests.bench.layouts", is_ours=True) as worker,
        tqdm(total=len(DIRECTIONS) * repetitions, desc="temporal convolution", unit="round") as progress,
    ):
        for direction in DIRECTIONS:
            for layout in LAYOUTS:
                worker.prepare(f"{layout} {direction}", layout=layout, direction=direction)
            subjects = [(worker, f"{layout} {direction}") for layout in LAYOUTS]
            measured = workers.take_turns(subjects, repetitions, progress)
            for layout, times in zip(LAYOUTS, measured, strict=True):
                found[layout] |= {
                    f"{direction}_ms": statistics.median(times),
                    f"{direction}_ratio": rows.ratio(times, measured[0]),
                    f"{direction}_ratio_of_fastest": min(times) / min(measured[0]),
                }
                calls[layout][direction] = times
    return [row | {"calls_ms": calls[layout]} for layout, row in found.items()]


if __name__ == "__main__":
    device.start(0)
    serving.serve(build)
