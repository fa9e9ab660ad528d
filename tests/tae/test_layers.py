import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen.device.attention import Attention
from moviegen.device.kernels import ExpandRows, RMSNorm
from moviegen.device.video import GroupNorm
from moviegen.tae.layers import TemporalConv

RNG = np.random.default_rng(0)


def numpy_temporal_conv(video, weight, bias, stride, padding):
    """video (B, T, C, H, W), weight (O, C, 1, 3)."""
    first, last = video[:, :1], video[:, -1:]
    if padding == "zeros":
        first, last = np.zeros_like(first), np.zeros_like(last)
    padded = np.concatenate((first, video, last), 1)
    starts = range(0, video.shape[1], stride)
    frames = [sum(np.einsum("oc,bchw->bohw", weight[:, :, 0, k], padded[:, s + k]) for k in range(3)) for s in starts]
    return np.stack(frames, 1) + bias[:, None, None]


@pytest.mark.parametrize(("frames", "stride", "padding"), [
    (1, 1, "replicate"), (1, 2, "replicate"), (2, 2, "replicate"), (5, 1, "replicate"), (5, 2, "replicate"),
    (8, 2, "replicate"), (1, 1, "zeros"), (4, 1, "zeros"),
])  # fmt: skip
def test_temporal_convolution_against_numpy(frames, stride, padding):
    conv = TemporalConv(3, stride=stride, padding=padding)
    weight, bias = RNG.standard_normal((3, 3, 1, 3)), RNG.standard_normal(3)
    conv.weight.set_data(ms.Tensor(weight, ms.float32))
    conv.bias.set_data(ms.Tensor(bias, ms.float32))
    video = RNG.standard_normal((2, frames, 3, 4, 5))
    out = conv(ms.Tensor(video.reshape(-1, 3, 4, 5), ms.float32), frames).asnumpy()
    wanted = numpy_temporal_conv(video, weight, bias, stride, padding)
    np.testing.assert_allclose(out, wanted.reshape(-1, 3, 4, 5), atol=1e-5)


def test_temporal_convolution_starts_as_the_identity():
    frames = RNG.standard_normal((6, 4, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(TemporalConv(4)(ms.Tensor(frames), 3).asnumpy(), frames)
    every_other = TemporalConv(4, stride=2)(ms.Tensor(frames), 3).asnumpy()
    np.testing.assert_array_equal(every_other, frames[[0, 2, 3, 5]])


@pytest.mark.parametrize("frames", [1, 3])
def test_group_norm_covers_channels_of_a_group_time_and_space(frames):
    norm = GroupNorm(2, 6, eps=1e-6)
    gamma, beta = RNG.standard_normal(6), RNG.standard_normal(6)
    norm.gamma.set_data(ms.Tensor(gamma, ms.float32))
    norm.beta.set_data(ms.Tensor(beta, ms.float32))
    video = RNG.standard_normal((2, frames, 2, 3, 4, 5)) * 3 + 7  # B, T, groups, channels of a group, H, W
    out = norm(ms.Tensor(video.reshape(-1, 6, 4, 5), ms.float32), frames).asnumpy().reshape(2, frames, 6, 4, 5)
    axes = (1, 3, 4, 5)
    normed = (video - video.mean(axes, keepdims=True)) / np.sqrt(video.var(axes, keepdims=True) + 1e-6)
    wanted = normed.reshape(2, frames, 6, 4, 5) * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(out, wanted, atol=2e-5)


def test_rms_norm_and_expand_rows_against_numpy():
    x = RNG.standard_normal((2, 3, 8))
    norm = RMSNorm(8, eps=1e-5)
    weight = RNG.standard_normal(8)
    norm.weight.set_data(ms.Tensor(weight, ms.float32))
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(norm(ms.Tensor(x, ms.float32)).asnumpy(), wanted, atol=1e-5)
    rows = ExpandRows()(ms.Tensor(x[:, :1], ms.float32), 4).asnumpy()
    np.testing.assert_allclose(rows, np.repeat(x[:, :1], 4, 1), atol=1e-7)


def numpy_attention(q, k, v, keep):
    """q (B, N, heads, width), k and v (B, M, heads, width), keep (B, M)."""
    q, k, v = (tokens.swapaxes(1, 2) for tokens in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + np.where(keep, 0, -1e9)[:, None, None]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(1, 2)


def test_attention_and_its_gradients_against_numpy():
    q, k, v = (RNG.standard_normal((2, n, 2, 4)) for n in (3, 5, 5))
    keep = np.array([[True] * 5, [True, True, False, True, False]])
    weigh = RNG.standard_normal((2, 3, 2, 4))
    attention = Attention(2, 4)
    tensors = [ms.Tensor(array, ms.float32) for array in (q, k, v)]
    out = attention(*tensors, ms.Tensor(keep)).asnumpy()
    np.testing.assert_allclose(out, numpy_attention(q, k, v, keep), atol=1e-5)

    def total(q, k, v):
        return (attention(q, k, v, ms.Tensor(keep)) * ms.Tensor(weigh, ms.float32)).sum()

    gradients = ops.grad(total, (0, 1, 2))(*tensors)
    for position, gradient in enumerate(gradients):
        direction = RNG.standard_normal((q, k, v)[position].shape)
        moved = []
        for sign in (1, -1):
            arrays = [q, k, v]
            arrays[position] = arrays[position] + sign * 1e-5 * direction
            moved.append(arrays)
        numeric = np.subtract(*[(numpy_attention(*arrays, keep) * weigh).sum() for arrays in moved]) / 2e-5
        assert (gradient.asnumpy() * direction).sum() == pytest.approx(numeric, rel=1e-3, abs=1e-4)
