"""The attention kernel in float16, whose largest number is 65504, with tokens that are masked."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen.device import attention as kernels
from moviegen.device.attention import Attention

RNG = np.random.default_rng(0)


def numpy_attention(q, k, v, keep):
    """In float64; q (B, heads, N, width), k and v (B, heads, M, width), keep (B, M): output, and what weighs v."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores[~np.broadcast_to(keep[:, None, None], scores.shape)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p @ v, p


def numpy_gradients(q, k, v, keep, weigh):
    """Of (output * weigh).sum() by q, k and v."""
    out, p = numpy_attention(q, k, v, keep)
    ds = p * (weigh @ v.swapaxes(-1, -2) - (out * weigh).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ weigh


# head widths of `tiny` and of 5B and 30B; float16 holds 11 bits
@pytest.mark.parametrize(("dtype", "rounding"), [(ms.float32, 1e-5), (ms.float16, 1e-2)])
@pytest.mark.parametrize("width", [32, 128])
def test_masked_attention_and_its_gradients_in_every_precision(width, dtype, rounding):
    arrays = [RNG.standard_normal((2, 2, tokens, width)).astype(np.float16) for tokens in (3, 5, 5, 3)]
    keep = np.array([[True] * 5, [True, True, False, True, False]])
    q, k, v, weigh = (array.astype(np.float64) for array in arrays)
    attention, tensors = Attention(2, width), [ms.Tensor(array.swapaxes(1, 2), dtype) for array in arrays]

    def total(q, k, v):
        return (attention(q, k, v, ms.Tensor(keep)) * tensors[3]).sum()

    found = [attention(*tensors[:3], ms.Tensor(keep)), *ops.grad(total, (0, 1, 2))(*tensors[:3])]
    wanted = [numpy_attention(q, k, v, keep)[0], *numpy_gradients(q, k, v, keep, weigh)]
    for mine, truth in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine.asnumpy().swapaxes(1, 2), truth, atol=rounding * np.abs(truth).max())


@pytest.mark.parametrize(("dtype", "is_taken"), [(ms.float32, False), (ms.float16, True)])
def test_on_a_card_flash_attention_gets_half_precision_only(monkeypatch, dtype, is_taken):
    """It takes nothing else; the autoencoder is float32."""
    monkeypatch.setattr(kernels, "target", lambda: "Ascend")
    attention, asked = Attention(2, 8), []

    def flash(q, k, v, *others):
        asked.append([array.shape for array in (q, k, v) if array.dtype == dtype])
        return None, None, None, q

    attention.flash = flash
    q, k = (ms.Tensor(RNG.standard_normal((1, tokens, 2, 8)), dtype) for tokens in (3, 5))
    found = attention.construct(q, k, k)
    assert asked == ([[(1, 3, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8)]] if is_taken else [])
    if not is_taken:
        wanted, _ = numpy_attention(
            *(array.asnumpy().astype(float).swapaxes(1, 2) for array in (q, k, k)), np.full((1, 5), True)
        )
        np.testing.assert_allclose(found.asnumpy().swapaxes(1, 2), wanted, atol=1e-5)
