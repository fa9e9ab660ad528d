"""The autoencoder's layers in both forms against NumPy in float64: values and all gradients."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen.device import compiled, video
from moviegen.device.video import Convolution, GroupNorm, TemporalConvolution
from tests.device.comparing import compare, random, values_and_gradients


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
    return y, dx, dweight, dy.sum((0, 2, 3))


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
    compare(convolution, (x,), dy, numpy_convolution(x, weight, bias, dy, resize))


@pytest.mark.parametrize(("channels", "outputs", "height", "width"), [(3, 5, 4, 4), (24, 16, 5, 7), (16, 20, 16, 16)])
def test_convolution_of_kernel_one(form, channels, outputs, height, width):
    x, weight, bias = random(3, channels, height, width), random(outputs, channels, 1, 1), random(outputs)
    dy = random(3, outputs, height, width)
    convolution = Convolution(channels, outputs, kernel=1)
    convolution.weight.set_data(ms.Tensor(weight, ms.float32))
    convolution.bias.set_data(ms.Tensor(bias, ms.float32))
    compare(convolution, (x,), dy, numpy_convolution(x, weight, bias, dy, ""))


class OwnWeights(nn.Cell):
    """A temporal convolution with the weights that its Cell is given."""

    def __init__(self, convolution, weight, bias):
        super().__init__()
        self.convolution = convolution
        self.weight = ms.Parameter(ms.Tensor(weight, ms.float32))
        self.bias = ms.Parameter(ms.Tensor(bias, ms.float32))

    def construct(self, x, num_frames, base=None):
        return self.convolution(x, self.weight, self.bias, num_frames, base)


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
    return y, dx, dweight, dy.sum((0, 1, 3, 4))


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
    y, dx, dweight, dbias = numpy_temporal_convolution(x, weight, bias, dy, stride, repeat, padding)
    cell = OwnWeights(TemporalConvolution(channels, kernel, stride, is_doubled, padding), weight, bias)
    x, dy, y, dx = (video.reshape(-1, *video.shape[2:]) for video in (x, dy, y, dx))
    compare(cell, (x,), dy, (y, dx, dweight, dbias), frames)


class OnBase(nn.Cell):
    """What a layer gives for x, some constants and what its output is added to."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, x, base, *constants):
        return self.layer(x, *constants, base)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.usefixtures("form")
def test_convolution_in_time_is_added_to_a_base(kernel):
    x, base, dy, weight, bias = *(random(6, 4, 3, 5) for _ in range(3)), random(4, 4, 1, kernel), random(4)
    video, dvideo = (stack.reshape(2, 3, 4, 3, 5) for stack in (x, dy))
    y, dx, *dweights = numpy_temporal_convolution(video, weight, bias, dvideo, 1, 1, "replicate")
    y, dx = y.reshape(x.shape), dx.reshape(x.shape)
    layer = OwnWeights(TemporalConvolution(4, kernel, 1, False, "replicate"), weight, bias)
    compare(OnBase(layer), (x, base), dy, (base + y, dx, dy, *dweights), 3)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.usefixtures("form")
def test_convolution_in_space_is_added_to_a_base(kernel):
    x, base, dy = random(3, 4, 4, 6), random(3, 5, 4, 6), random(3, 5, 4, 6)
    weight, bias = random(5, 4, kernel, kernel), random(5)
    y, dx, *dweights = numpy_convolution(x, weight, bias, dy, "")
    layer = Convolution(4, 5, kernel)
    layer.weight.set_data(ms.Tensor(weight, ms.float32))
    layer.bias.set_data(ms.Tensor(bias, ms.float32))
    compare(OnBase(layer), (x, base), dy, (base + y, dx, dy, *dweights))


class Beside(nn.Cell):
    """Group norm times one factor, and its x times another."""

    def __init__(self, norm, factor, of_shortcut):
        super().__init__()
        self.norm, self.factor, self.of_shortcut = norm, factor, of_shortcut

    def construct(self, x, num_frames):
        normed, shortcut = self.norm.beside(x, num_frames)
        return normed * self.factor + shortcut * self.of_shortcut


@pytest.mark.usefixtures("form")
def test_group_norm_adds_the_gradient_of_a_shortcut():
    norm = GroupNorm(2, 4, has_silu=True)
    x, dy = random(6, 4, 3, 5), random(6, 4, 3, 5)
    normed, *gradients = values_and_gradients(norm, (x,), dy, 3)
    dx, dgamma, dbeta = (gradient.asnumpy() for gradient in gradients)
    wanted = (2 * normed.asnumpy() + 3 * x, 2 * dx + 3 * dy, 2 * dgamma, 2 * dbeta)
    compare(Beside(norm, 2, 3), (x,), dy, wanted, 3)


@pytest.fixture(params=[compiled.COMPILED, compiled.MINDSPORE, "card"])
def norm_form(request, eager, monkeypatch):
    """Norms made from now on compute in this form; a card's, with the CPU's operators."""
    if request.param == compiled.COMPILED and not compiled.is_compiled():
        pytest.skip("MindSpore's own operators are chosen")
    if request.param == "card":
        monkeypatch.setattr(video, "target", lambda: "Ascend")
    monkeypatch.setenv(compiled.CHOICE, compiled.COMPILED if request.param == compiled.COMPILED else compiled.MINDSPORE)


@pytest.mark.usefixtures("norm_form")
@pytest.mark.parametrize("has_silu", [False, True])
@pytest.mark.parametrize(("frames", "groups", "channels", "height", "width"), [
    (1, 2, 4, 3, 3), (3, 2, 6, 4, 5), (16, 4, 16, 8, 8), (2, 8, 8, 3, 33),
])  # fmt: skip
def test_group_norm(has_silu, frames, groups, channels, height, width):
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
    compare(norm, (x,), dy, (y, *gradients), frames)


def half(*shape):
    """Numbers of float16 in float64."""
    return random(*shape).astype(np.float16).astype(np.float64)


def assert_half(cell, inputs, dy, wanted, *constants):
    """Values and gradients are float16 and float32, and right to some roundings of 2^-11 of the largest number."""
    found = values_and_gradients(cell, inputs, dy, *constants, dtype=ms.float16)
    types = [ms.float16] * (1 + len(inputs)) + [ms.float32] * (len(wanted) - 1 - len(inputs))
    assert [tensor.dtype for tensor in found] == types
    for ours, truth in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), truth, rtol=0, atol=4e-3 * np.abs(truth).max())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("resize", ["", "halve", "double"])
def test_convolution_in_half_precision_with_weights_of_float32(resize):
    x, weight, bias = half(2, 8, 6, 6), half(5, 8, 3, 3), half(5)
    size = {"": 6, "halve": 3, "double": 12}[resize]
    dy = half(2, 5, size, size)
    convolution = Convolution(8, 5, resize=resize)
    convolution.weight.set_data(ms.Tensor(weight, ms.float32))
    convolution.bias.set_data(ms.Tensor(bias, ms.float32))
    assert_half(convolution, (x,), dy, numpy_convolution(x, weight, bias, dy, resize))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("stride", "is_doubled"), [(1, False), (2, False), (1, True)])
def test_temporal_convolution_in_half_precision_with_weights_of_float32(stride, is_doubled):
    repeat = 2 if is_doubled else 1
    x, weight, bias, dy = half(2, 4, 8, 4, 4), half(8, 8, 1, 3), half(8), half(2, 4 * repeat // stride, 8, 4, 4)
    y, dx, dweight, dbias = numpy_temporal_convolution(x, weight, bias, dy, stride, repeat, "replicate")
    cell = OwnWeights(TemporalConvolution(8, 3, stride, is_doubled, "replicate"), weight, bias)
    x, dy, y, dx = (stack.reshape(-1, *stack.shape[2:]) for stack in (x, dy, y, dx))
    assert_half(cell, (x,), dy, (y, dx, dweight, dbias), 4)


@pytest.mark.usefixtures("norm_form")
def test_statistics_of_a_norm_in_half_precision_are_float32():
    """Squares of these numbers, and sums of a group of them, are more than float16 holds."""
    frames, groups, channels = 4, 2, 8
    x = (1000 + 8 * random(1, frames, channels, 16, 16)).astype(np.float16).astype(np.float64)
    axes, grouped = (1, 3, 4, 5), x.reshape(1, frames, groups, channels // groups, 16, 16)
    centred = grouped - grouped.mean(axes, keepdims=True)
    wanted = (centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-6)).reshape(frames, channels, 16, 16)
    found = GroupNorm(groups, channels)(ms.Tensor(x.reshape(frames, channels, 16, 16), ms.float16), frames)
    assert found.dtype == ms.float16
    np.testing.assert_allclose(found.asnumpy(), wanted, atol=2**-10 * np.abs(wanted).max())
