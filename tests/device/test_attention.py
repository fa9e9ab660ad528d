"""Attention in both forms and in every precision against NumPy in float64: the output and all gradients."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.device import attention as kernels
from moviegen.device import compiled
from moviegen.device.attention import Attention
from tests.device.comparing import compare, random, values_and_gradients

RNG = np.random.default_rng(0)


def numpy_attention(q, k, v, keep):
    """q (B, N, heads, width), k and v (B, M, heads, width), keep (B, M): output, and what weighs v (B, heads, N, M)."""
    scores = np.einsum("bnhw,bmhw->bhnm", q, k) / np.sqrt(q.shape[-1])
    scores[~np.broadcast_to(keep[:, None, None], scores.shape)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("bhnm,bmhw->bnhw", p, v), p


def numpy_gradients(q, k, v, keep, dout):
    """Of q, k and v."""
    out, p = numpy_attention(q, k, v, keep)
    inner = (out * dout).sum(-1).swapaxes(1, 2)[..., None]
    ds = p * (np.einsum("bnhw,bmhw->bhnm", dout, v) - inner) / np.sqrt(q.shape[-1])
    dq, dk = np.einsum("bhnm,bmhw->bnhw", ds, k), np.einsum("bhnm,bnhw->bmhw", ds, q)
    return dq, dk, np.einsum("bhnm,bnhw->bmhw", p, dout)


def numpy_all(q, k, v, keep, dout):
    return numpy_attention(q, k, v, keep)[0], *numpy_gradients(q, k, v, keep, dout)


def tokens(batch, queries, keys, heads, width):
    """q, k, v, and a gradient of the output."""
    return [random(batch, count, heads, width) for count in (queries, keys, keys, queries)]


def some_kept(batch, keys):
    """In each sample at least one key, and not all of several."""
    keep = RNG.random((batch, keys)) < 0.5
    keep[:, -1] = False
    keep[:, 0] = True
    return keep


def test_the_gradients_wanted_are_slopes():
    *arrays, weigh = tokens(2, 3, 5, 2, 4)
    keep = some_kept(2, 5)
    for position, gradient in enumerate(numpy_gradients(*arrays, keep, weigh)):
        direction, totals = random(*arrays[position].shape), []
        for step in (1e-5, -1e-5):
            moved = list(arrays)
            moved[position] = moved[position] + step * direction
            totals.append((numpy_attention(*moved, keep)[0] * weigh).sum())
        assert (gradient * direction).sum() == pytest.approx((totals[0] - totals[1]) / 2e-5, rel=1e-6)


# B, N, M, heads, W: tiny; odd; more queries or keys than a block of the output or of the gradients
SIZES = [(1, 1, 2, 1, 5), (2, 37, 53, 3, 5), (2, 300, 270, 2, 32), (1, 97, 530, 1, 64), (2, 257, 40, 1, 128)]


@pytest.mark.parametrize("size", SIZES)
def test_attention(form, size):
    batch, _, keys, heads, width = size
    *inputs, dout = tokens(*size)
    wanted = numpy_all(*inputs, np.full((batch, keys), True), dout)
    compare(Attention(heads, width), inputs, dout, wanted)


@pytest.mark.parametrize("size", SIZES[1:])
def test_masked_attention(form, size):
    batch, _, keys, heads, width = size
    *inputs, dout = tokens(*size)
    keep = some_kept(batch, keys)
    compare(Attention(heads, width), inputs, dout, numpy_all(*inputs, keep, dout), ms.Tensor(keep))


def test_one_key_that_is_kept_gives_its_value(form):
    *inputs, dout = tokens(2, 20, 300, 2, 8)
    keep = np.zeros((2, 300), bool)
    keep[0, 299] = keep[1, 130] = True
    out, dq, dk, dv = values_and_gradients(Attention(2, 8), inputs, dout, ms.Tensor(keep))
    wanted, *_, wanted_dv = numpy_all(*inputs, keep, dout)
    np.testing.assert_allclose(out.asnumpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(dv.asnumpy(), wanted_dv, atol=1e-5 * np.abs(wanted_dv).max())
    for gradient in (dq, dk):  # whatever the scores
        np.testing.assert_allclose(gradient.asnumpy(), 0, atol=1e-4)


@pytest.mark.parametrize("form", [compiled.COMPILED], indirect=True)  # MindSpore's softmax gives what is nearly 0
def test_keys_that_are_masked_get_zero(form):
    """Not what is too small for a normal number: products with such take a hundred cycles each."""
    *inputs, dout = tokens(2, 20, 300, 2, 8)
    keep = some_kept(2, 300)
    _, _, dk, dv = values_and_gradients(Attention(2, 8), inputs, dout, ms.Tensor(keep))
    for gradient in (dk, dv):
        assert not gradient.asnumpy()[~keep].any()


def test_scores_of_ten_thousand_choose_a_key(form):
    """Each query finds one key at 10^4, some at 0 and the others at -10^4: exact in float32."""
    q, k = np.zeros((1, 12, 1, 16)), np.zeros((1, 70, 1, 16))
    for query in range(12):
        q[0, query, 0, query] = 200
    k[0, :, 0, :12] = -200
    k[0, 12:24, 0] = 0
    for key in range(12):
        k[0, key, 0, key] = 200
    v, dout = random(1, 70, 1, 16), random(1, 12, 1, 16)
    out, dq, dk, dv = values_and_gradients(Attention(1, 16), (q, k, v), dout)
    np.testing.assert_allclose(out.asnumpy(), v[:, :12], atol=1e-6)
    np.testing.assert_allclose(dv.asnumpy()[:, :12], dout, atol=1e-6)
    np.testing.assert_allclose(dv.asnumpy()[:, 12:], 0, atol=1e-30)
    for gradient in (dq, dk):  # of 200, times what is left of v's product with dout less itself
        np.testing.assert_allclose(gradient.asnumpy(), 0, atol=200 * 1e-5)


@pytest.mark.parametrize(("bad", "is_masked"), [(np.nan, False), (np.inf, False), (-np.inf, True)])
def test_what_is_not_finite_stays_so(form, bad, is_masked):
    """In the output, or in a gradient if it comes from there."""
    keep = [ms.Tensor(some_kept(1, 50))] if is_masked else []
    for position in range(4):
        arrays = tokens(1, 20, 50, 2, 8)
        arrays[position][0, 0, 1, 3] = bad
        *inputs, dout = arrays
        out, *gradients = (found.asnumpy() for found in values_and_gradients(Attention(2, 8), inputs, dout, *keep))
        assert np.isfinite(out[:, :, 0]).all(), "another head's"
        assert np.isfinite(out).all() == (position == 3)
        assert not all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("form", [compiled.COMPILED], indirect=True)  # MindSpore's softmax gives any number
@pytest.mark.parametrize("keys", [1, 3])
def test_scores_that_are_all_minus_infinity_give_nan(form, keys):
    q, k, v, dout = (
        np.full((1, 2, 1, 1), -np.inf),
        np.ones((1, keys, 1, 1)),
        random(1, keys, 1, 1),
        np.ones((1, 2, 1, 1)),
    )
    out, *gradients = values_and_gradients(Attention(1, 1), (q, k, v), dout)
    assert np.isnan(out.asnumpy()).all()
    assert all(np.isnan(gradient.asnumpy()).all() for gradient in gradients[1:])


# head widths of `tiny` and of 5B and 30B; float16 holds 11 bits, and 65504 is its largest number
@pytest.mark.parametrize("width", [32, 128])
def test_masked_attention_in_half_precision(form, width):
    arrays = [array.astype(np.float16) for array in tokens(2, 3, 5, 2, width)]
    keep = np.array([[True] * 5, [True, True, False, True, False]])
    *inputs, dout = arrays
    found = values_and_gradients(Attention(2, width), inputs, dout, ms.Tensor(keep), dtype=ms.float16)
    wanted = numpy_all(*(array.astype(np.float64) for array in inputs), keep, dout.astype(np.float64))
    for ours, truth in zip(found, wanted, strict=True):
        assert ours.dtype == ms.float16
        np.testing.assert_allclose(ours.asnumpy(), truth, atol=1e-2 * np.abs(truth).max())


@pytest.mark.parametrize(("dtype", "is_taken"), [(ms.float32, False), (ms.float16, True)])
def test_on_a_card_flash_attention_gets_half_precision_only(monkeypatch, dtype, is_taken):
    """It takes nothing else; the autoencoder is float32."""
    monkeypatch.setattr(kernels, "target", lambda: "Ascend")
    attention, asked = Attention(2, 8), []

    def flash(q, k, v, *others):
        asked.append([array.shape for array in (q, k, v) if array.dtype == dtype])
        return None, None, None, q

    attention.flash = flash
    q, k = (ms.Tensor(random(1, count, 2, 8), dtype) for count in (3, 5))
    found = attention.construct(q, k, k)
    assert asked == ([[(1, 3, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8)]] if is_taken else [])
    if not is_taken:
        wanted, _ = numpy_attention(*(array.asnumpy().astype(float) for array in (q, k, k)), np.full((1, 5), True))
        np.testing.assert_allclose(found.asnumpy(), wanted, atol=1e-5)
