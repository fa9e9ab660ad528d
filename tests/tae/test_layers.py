import mindspore as ms
import numpy as np
import pytest

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
