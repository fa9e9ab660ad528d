"""The autoencoder's layers in both forms against NumPy in float64: values and all gradients."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.device import compiled
from moviegen.device.video import Convolution, GroupNorm, TemporalConvolution

RNG = np.random.default_rng(0)
DRIVER = Path(__file__).with_name("video_driver.py")
needs_library = pytest.mark.skipif(not compiled.is_compiled(), reason="MindSpore's own operators are chosen")


@pytest.fixture(params=["compiled", "mindspore"])
def form(request, eager):
    if request.param == "compiled" and not compiled.is_compiled():
        pytest.skip("MindSpore's own operators are chosen")
    return request.param


def random(*shape):
    """Numbers of float32 in float64."""
    return RNG.standard_normal(shape).astype(np.float32).astype(np.float64)


def close(ours, wanted):
    """To 1e-5 of the largest number."""
    np.testing.assert_allclose(ours.asnumpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def compare(cell, form, x, dy, wanted_y, wanted_gradients, *arguments):
    """A Cell's output and the gradients of x and of its weights, for the gradient dy of its output."""
    cell.is_compiled = form == "compiled"
    weights = ms.ParameterTuple(cell.trainable_params())
    x, dy = ms.Tensor(x, ms.float32), ms.Tensor(dy, ms.float32)

    def total(x):
        return (cell(x, *arguments) * dy).sum()

    close(cell(x, *arguments), wanted_y)
    dx, dweights = ops.value_and_grad(total, 0, weights)(x)[1]
    for ours, wanted in zip((dx, *dweights), wanted_gradients, strict=True):
        close(ours, wanted)


def numpy_convolution(x, weight, bias, dy, resize):
    """Output and gradients of x, weight and bias; a convolution of kernel 3 or 1."""
    kernel, step = weight.shape[2], 2 if resize == "halve" else 1
    repeat = 2 if resize == "double" else 1
    fine = x.repeat(repeat, 2).repeat(repeat, 3)
    pad = (0, 1) if resize == "halve" else ((kernel - 1) // 2,) * 2
    padded = np.pad(fine, ((0, 0), (0, 0), pad, pad))
    y, dpadded, dweight = np.zeros(dy.shape) + bias[:, None, None], np.zeros(padded.shape), np.zeros(weight.shape)
    for u in range(kernel):
        for v in range(kernel):
            rows, columns = (slice(k, k + step * (n - 1) + 1, step) for k, n in zip((u, v), dy.shape[2:], strict=True))
            seen = (slice(None), slice(None), rows, columns)
            y += np.einsum("oc,nchw->nohw", weight[:, :, u, v], padded[seen])
            dpadded[seen] += np.einsum("oc,nohw->nchw", weight[:, :, u, v], dy)
            dweight[:, :, u, v] = np.einsum("nohw,nchw->oc", dy, padded[seen])
    dfine = dpadded[:, :, pad[0] : pad[0] + fine.shape[2], pad[0] : pad[0] + fine.shape[3]]
    dx = dfine.reshape(*x.shape[:2], x.shape[2], repeat, x.shape[3], repeat).sum((3, 5))
    return y, (dx, dweight, dy.sum((0, 2, 3)))


@pytest.mark.parametrize("resize", ["", "halve", "double"])
@pytest.mark.parametrize(("channels", "outputs", "height", "width"), [
    (1, 1, 2, 2), (3, 16, 16, 32), (16, 3, 16, 16), (20, 9, 5, 7), (5, 70, 8, 4),
])  # fmt: skip
def test_convolution(form, resize, channels, outputs, height, width):
    x, weight, bias = random(3, channels, height, width), random(outputs, channels, 3, 3), random(outputs)
    size = {"": lambda n: n, "halve": lambda n: n // 2, "double": lambda n: 2 * n}[resize]
    dy = random(3, outputs, size(height), size(width))
    convolution = Convolution(channels, outputs, resize=resize)
    convolution.weight.set_data(ms.Tensor(weight, ms.float32))
    convolution.bias.set_data(ms.Tensor(bias, ms.float32))
    compare(convolution, form, x, dy, *numpy_convolution(x, weight, bias, dy, resize))


@pytest.mark.parametrize(("channels", "outputs", "height", "width"), [(3, 5, 4, 4), (24, 16, 5, 7), (16, 20, 16, 16)])
def test_convolution_of_kernel_one(form, channels, outputs, height, width):
    x, weight, bias = random(3, channels, height, width), random(outputs, channels, 1, 1), random(outputs)
    dy = random(3, outputs, height, width)
    convolution = Convolution(channels, outputs, kernel=1)
    convolution.weight.set_data(ms.Tensor(weight, ms.float32))
    convolution.bias.set_data(ms.Tensor(bias, ms.float32))
    compare(convolution, form, x, dy, *numpy_convolution(x, weight, bias, dy, ""))


class OwnWeights(nn.Cell):
    """A temporal convolution with the weights that its Cell is given."""

    def __init__(self, convolution, weight, bias):
        super().__init__()
        self.convolution = convolution
        self.weight = ms.Parameter(ms.Tensor(weight, ms.float32))
        self.bias = ms.Parameter(ms.Tensor(bias, ms.float32))

    def construct(self, x, num_frames):
        self.convolution.is_compiled = self.is_compiled
        return self.convolution(x, self.weight, self.bias, num_frames)


def numpy_temporal_convolution(x, weight, bias, dy, stride, repeat, padding):
    """Output and gradients of x (B, T, C, H, W), weight (C, C, 1, kernel) and bias."""
    kernel, last = weight.shape[3], x.shape[1] * repeat - 1
    y, dx, dweight = np.zeros(dy.shape) + bias[:, None, None], np.zeros(x.shape), np.zeros(weight.shape)
    for t in range(dy.shape[1]):
        for k in range(kernel):
            at = t * stride + k - kernel // 2
            if padding == "zeros" and not 0 <= at <= last:
                continue
            frame = min(max(at, 0), last) // repeat
            y[:, t] += np.einsum("oc,bchw->bohw", weight[:, :, 0, k], x[:, frame])
            dx[:, frame] += np.einsum("oc,bohw->bchw", weight[:, :, 0, k], dy[:, t])
            dweight[:, :, 0, k] += np.einsum("bohw,bchw->oc", dy[:, t], x[:, frame])
    return y, (dx, dweight, dy.sum((0, 1, 3, 4)))


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize(("kernel", "stride", "is_doubled"), [
    (1, 1, False), (3, 1, False), (3, 2, False), (3, 1, True),
])  # fmt: skip
@pytest.mark.parametrize(("frames", "channels", "height", "width"), [
    (1, 3, 2, 2), (2, 16, 4, 4), (5, 9, 5, 7), (4, 20, 12, 13),
])  # fmt: skip
def test_temporal_convolution(form, padding, kernel, stride, is_doubled, frames, channels, height, width):
    x, weight, bias = (
        random(2, frames, channels, height, width),
        random(channels, channels, 1, kernel),
        random(channels),
    )
    repeat = 2 if is_doubled else 1
    dy = random(2, -(-frames * repeat // stride), channels, height, width)
    y, (dx, dweight, dbias) = numpy_temporal_convolution(x, weight, bias, dy, stride, repeat, padding)
    cell = OwnWeights(TemporalConvolution(channels, kernel, stride, is_doubled, padding), weight, bias)
    x, dy, y, dx = (video.reshape(-1, *video.shape[2:]) for video in (x, dy, y, dx))
    compare(cell, form, x, dy, y, (dx, dweight, dbias), frames)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_in_time_is_added_to_a_base(form, kernel):
    x, base, dy = random(6, 4, 3, 5), random(6, 4, 3, 5), random(6, 4, 3, 5)
    weight, bias = random(4, 4, 1, kernel), random(4)
    video, dvideo = (stack.reshape(2, 3, 4, 3, 5) for stack in (x, dy))
    y, (dx, _, _) = numpy_temporal_convolution(video, weight, bias, dvideo, 1, 1, "replicate")
    layer = TemporalConvolution(4, kernel, 1, False, "replicate")
    layer.is_compiled = form == "compiled"
    weight, bias, slopes = (ms.Tensor(array, ms.float32) for array in (weight, bias, dy))
    check_base(
        lambda x, base: layer(x, weight, bias, 3, base), x, base, slopes, y.reshape(x.shape), dx.reshape(x.shape)
    )


def check_base(layer, x, base, slopes, y, dx):
    inputs = tuple(ms.Tensor(array, ms.float32) for array in (x, base))
    close(layer(*inputs), base + y)
    ours = ops.grad(lambda x, base: (layer(x, base) * slopes).sum(), (0, 1))(*inputs)
    for gradient, wanted in zip(ours, (dx, slopes.asnumpy()), strict=True):
        close(gradient, wanted)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_in_space_is_added_to_a_base(form, kernel):
    x, base, dy = random(3, 4, 4, 6), random(3, 5, 4, 6), random(3, 5, 4, 6)
    weight, bias = random(5, 4, kernel, kernel), random(5)
    y, (dx, _, _) = numpy_convolution(x, weight, bias, dy, "")
    layer = Convolution(4, 5, kernel)
    layer.is_compiled = form == "compiled"
    layer.weight.set_data(ms.Tensor(weight, ms.float32))
    layer.bias.set_data(ms.Tensor(bias, ms.float32))
    check_base(layer, x, base, ms.Tensor(dy, ms.float32), y, dx)


def test_group_norm_adds_the_gradient_of_a_shortcut(form):
    norm = GroupNorm(2, 4, has_silu=True)
    norm.is_compiled = form == "compiled"
    x, dy, dshortcut = (ms.Tensor(random(6, 4, 3, 5), ms.float32) for _ in range(3))

    def both(x):
        normed, shortcut = norm.beside(x, 3)
        return (normed * dy).sum() + (shortcut * dshortcut).sum()

    alone = ops.grad(lambda x: (norm(x, 3) * dy).sum())(x)
    close(ops.grad(both)(x), alone.asnumpy() + dshortcut.asnumpy())


@pytest.mark.parametrize("has_silu", [False, True])
@pytest.mark.parametrize(("frames", "groups", "channels", "height", "width"), [
    (1, 2, 4, 3, 3), (3, 2, 6, 4, 5), (16, 4, 16, 8, 8), (2, 8, 8, 3, 33),
])  # fmt: skip
def test_group_norm(form, has_silu, frames, groups, channels, height, width):
    x, dy = 3 * random(2, frames, channels, height, width) + 7, random(2, frames, channels, height, width)
    gamma, beta = random(channels), random(channels)
    grouped, axes = (2, frames, groups, channels // groups, height, width), (1, 3, 4, 5)
    centred = x.reshape(grouped) - x.reshape(grouped).mean(axes, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-6)
    normed = (centred * scale).reshape(x.shape)
    y = normed * gamma[:, None, None] + beta[:, None, None]
    gate = 1 / (1 + np.exp(-y))
    slope = dy * (gate + y * gate * (1 - gate)) if has_silu else dy
    dnormed, hat = (slope * gamma[:, None, None]).reshape(grouped), normed.reshape(grouped)
    means = dnormed.mean(axes, keepdims=True) + hat * (dnormed * hat).mean(axes, keepdims=True)
    gradients = (
        (scale * (dnormed - means)).reshape(-1, *x.shape[2:]),
        (slope * normed).sum((0, 1, 3, 4)),
        slope.sum((0, 1, 3, 4)),
    )
    norm = GroupNorm(groups, channels, has_silu=has_silu)
    norm.gamma.set_data(ms.Tensor(gamma, ms.float32))
    norm.beta.set_data(ms.Tensor(beta, ms.float32))
    frames_of = (video.reshape(-1, *video.shape[2:]) for video in (x, dy, y * gate if has_silu else y))
    x, dy, y = frames_of
    compare(norm, form, x, dy, y, gradients, frames)


def drive(library, **variables):
    """What `video_driver` prints."""
    command = (sys.executable, str(DRIVER), str(library))
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@needs_library
def test_one_thread_and_three_and_a_second_run_give_the_same_bits():
    runs = [drive(compiled.library(), MOVIEGEN_THREADS=threads) for threads in ("1", "3", "3")]
    assert runs[0] and runs == runs[:1] * 3


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")
def test_a_sanitizer_finds_nothing(tmp_path):
    source = Path(compiled.__file__).with_name("operators.cpp")
    library, asan = (
        tmp_path / "operators.so",
        subprocess.check_output(("g++", "-print-file-name=libasan.so"), text=True).strip(),
    )
    flags = ("-O1", "-std=c++20", "-fopenmp-simd", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    subprocess.run(("g++", *flags, "-shared", "-fPIC", "-pthread", str(source), "-o", str(library)), check=True)
    assert drive(library, LD_PRELOAD=asan, ASAN_OPTIONS="detect_leaks=0", MOVIEGEN_THREADS="2")
