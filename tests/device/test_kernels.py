"""The transformer's kernels and AdamW in both forms against NumPy in float64: values and all gradients."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.device.kernels import ExpandRows, GatedSiLU, GatedSum, ModulatedRMSNorm, Product, RMSNorm
from moviegen.device.updates import AdamWUpdate, SumOfSquares, set_moments, split_moments, zero_moments
from tests.device.comparing import close, compare, random, values_and_gradients

EPS = 1e-3
# (B, N, D): one token, fewer than a vector, many parts of a sample's sum, a sample's end in the middle of a part
TOKENS = [(1, 1, 3), (3, 2, 5), (2, 100, 33), (5, 37, 128)]


# rows, inputs, outputs. With few threads: by one; by columns, though its gradient of weights is by rows, of the
# transposed; by rows; with panels that all share; the last is deeper than a panel.
@pytest.mark.parametrize("shape", [
    (1, 1, 1), (5, 3, 7), (37, 53, 71), (20, 300, 200), (300, 70, 90), (1100, 40, 3), (700, 400, 520),
])  # fmt: skip
def test_product(form, shape):
    rows, inputs, outputs = shape
    x, weight, dy = random(rows, inputs), random(outputs, inputs), random(rows, outputs)
    compare(Product(), (x, weight), dy, (x @ weight.T, dy @ weight, dy.T @ x))


def test_product_of_videos_tokens(form):
    x, weight, dy = random(2, 3, 5, 40), random(70, 40), random(2, 3, 5, 70)
    dweight = np.einsum("btno,btni->oi", dy, x)
    compare(Product(), (x, weight), dy, (x @ weight.T, dy @ weight, dweight))


def numpy_norm(x, weight, shift, scale, dy):
    """Output and gradients of x, shift, scale and weight."""
    r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)
    slope, tokens = dy * (1 + scale) * weight, (0, 1)
    dx = r * (slope - x * r * r * (slope * x).mean(-1, keepdims=True))
    dshift, dscale = dy.sum(1, keepdims=True), (dy * x * r * weight).sum(1, keepdims=True)
    return x * r * weight * (1 + scale) + shift, dx, dshift, dscale, (dy * (1 + scale) * x * r).sum(tokens)


@pytest.mark.parametrize("shape", TOKENS)
def test_rms_norm(form, shape):
    x, dy, weight = random(*shape), random(*shape), random(shape[-1])
    norm = RMSNorm(shape[-1], EPS)
    norm.weight.set_data(ms.Tensor(weight, ms.float32))
    y, dx, _, _, dweight = numpy_norm(x, weight, 0, 0, dy)
    compare(norm, (x,), dy, (y, dx, dweight))


@pytest.mark.parametrize("shape", TOKENS)
def test_modulated_rms_norm(form, shape):
    (batch, _, width), x, dy = shape, random(*shape), random(*shape)
    shift, scale, weight = random(batch, 1, width), random(batch, 1, width), random(width)
    norm = ModulatedRMSNorm(width, EPS)
    norm.weight.set_data(ms.Tensor(weight, ms.float32))
    compare(norm, (x, shift, scale), dy, numpy_norm(x, weight, shift, scale, dy))


@pytest.mark.parametrize("shape", TOKENS)
def test_gated_sum(form, shape):
    x, y, dout, gate = random(*shape), random(*shape), random(*shape), random(shape[0], 1, shape[2])
    compare(GatedSum(), (x, gate, y), dout, (x + gate * y, dout, (dout * y).sum(1, keepdims=True), dout * gate))


@pytest.mark.parametrize("shape", [*TOKENS, (1, 300, 100)])
def test_gated_silu(form, shape):
    gate, up, dout = 5 * random(*shape), random(*shape), random(*shape)
    s = 1 / (1 + np.exp(-gate))
    dgate = dout * up * (s + gate * s * (1 - s))
    compare(GatedSiLU(), (gate, up), dout, (gate * s * up, dgate, dout * gate * s))


def test_expand_rows(form):
    vectors = random(3, 1, 7)
    np.testing.assert_array_equal(ExpandRows()(ms.Tensor(vectors, ms.float32), 4).asnumpy(), vectors.repeat(4, 1))


# --- what is extreme ---


def test_gated_silu_of_numbers_whose_exponential_is_none(form):
    gate = np.array([-1e4, -100, -89, -88, -87, 0, 87, 88, 89, 100, 1e4])
    one = np.ones_like(gate)
    wanted = gate * (gate > 0), (gate > 0) + 0.5 * (gate == 0), gate * (gate > 0)  # in all that float32 can tell
    for ours, truth in zip(values_and_gradients(GatedSiLU(), (gate, one), one), wanted, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), truth, rtol=1e-6, atol=1e-30)


def test_norm_of_zeros_is_zero(form):
    zeros, ones = np.zeros((2, 3, 8)), np.ones((2, 3, 8))
    y, dx, dweight = values_and_gradients(RMSNorm(8, EPS), (zeros,), ones)
    assert not y.asnumpy().any() and not dweight.asnumpy().any()
    close(dx, ones / np.sqrt(EPS))


CELLS = {
    "product": (Product, [(3, 40), (50, 40)], (3, 50)),
    "rms_norm": (lambda: RMSNorm(40), [(2, 3, 40)], (2, 3, 40)),
    "modulated_norm": (lambda: ModulatedRMSNorm(40), [(2, 3, 40), (2, 1, 40), (2, 1, 40)], (2, 3, 40)),
    "gated_sum": (GatedSum, [(2, 3, 40), (2, 1, 40), (2, 3, 40)], (2, 3, 40)),
    "gated_silu": (GatedSiLU, [(2, 3, 40), (2, 3, 40)], (2, 3, 40)),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CELLS)
def test_what_is_not_finite_stays_so(form, name, bad):
    """In the output or in a gradient, wherever it comes from: it is how an update is found to be none."""
    make, shapes, out_shape = CELLS[name]
    for position in range(len(shapes) + 1):
        arrays = [random(*shape) for shape in (*shapes, out_shape)]
        arrays[position].flat[-1] = bad
        *inputs, dy = arrays
        y, *gradients = (found.asnumpy() for found in values_and_gradients(make(), inputs, dy))
        if position < len(shapes):
            assert not np.isfinite(y).all(), position
        else:
            assert np.isfinite(y).all()
            assert not all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", CELLS)
def test_half_precision_is_mindspores(form, name):
    make, shapes, out_shape = CELLS[name]
    *inputs, dy = [random(*shape).astype(np.float16) for shape in (*shapes, out_shape)]
    half = values_and_gradients(make(), inputs, dy, dtype=ms.float16)
    single = values_and_gradients(make(), inputs, dy)
    assert half[0].dtype == ms.float16
    for ours, wanted in zip(half, single, strict=True):
        truth = wanted.asnumpy()
        np.testing.assert_allclose(ours.asnumpy(), truth, atol=1e-2 * np.abs(truth).max())


# --- updates ---

SHAPES = [(3,), (1, 1), (50, 700), (2, 3, 5, 7)]  # more than a piece, and less


def test_sum_of_squares(form):
    tensors = [random(*shape) for shape in SHAPES]
    wanted = sum((tensor**2).sum() for tensor in tensors)
    ours = SumOfSquares()(tuple(ms.Tensor(tensor, ms.float32) for tensor in tensors))
    assert ours.shape == ()
    close(ours, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sum_of_squares_of_what_is_not_finite_is_not(form, bad):
    tensors = [random(*shape).astype(np.float32) for shape in SHAPES]
    tensors[2].flat[20_000] = bad
    assert not np.isfinite(SumOfSquares()(tuple(map(ms.Tensor, tensors))).asnumpy())


class Updated:
    """Weights of SHAPES, their moments and AdamW's updates of them."""

    def __init__(self):
        self.arrays = [random(*shape) for shape in SHAPES]
        named = {
            f"w{i}": ms.Parameter(ms.Tensor(array, ms.float32), name=f"w{i}") for i, array in enumerate(self.arrays)
        }
        self.weights = ms.ParameterTuple(tuple(named.values()))
        self.moments = zero_moments("moment1", named), zero_moments("moment2", named)
        self.decays, self.betas, self.eps = (0.0, 0.1, 0.2, 0.0), (0.9, 0.95), 1e-8
        self.cell = AdamWUpdate(self.decays, self.betas, self.eps)
        self.updates = ms.Parameter(ms.Tensor(0, ms.float32), name="updates")

    def update(self, gradients, rate, factor):
        tensors = tuple(ms.Tensor(gradient, ms.float32) for gradient in gradients)
        rate, factor = ms.Tensor(rate, ms.float32), ms.Tensor(factor, ms.float32)
        self.cell(self.weights, *self.moments, tensors, self.updates, rate, factor).asnumpy()

    def state(self):
        split = [tensor for moments in self.moments for tensor in split_moments(moments, self.weights)]
        weights, updates = ([one.asnumpy() for one in held] for held in (self.weights, (self.updates,)))
        return [array.copy() for array in (*weights, *split, *updates)]


def numpy_adamw(ours, updates, rate):
    """Weights, first and second moments, and their number, after updates with these gradients."""
    (beta1, beta2), weights = ours.betas, list(ours.arrays)
    first, second = [np.zeros(shape) for shape in SHAPES], [np.zeros(shape) for shape in SHAPES]
    for number, gradients in enumerate(updates, 1):
        for i, gradient in enumerate(gradients):
            first[i] = beta1 * first[i] + (1 - beta1) * gradient
            second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
            root = np.sqrt(second[i] / (1 - beta2**number)) + ours.eps
            weights[i] = (1 - rate * ours.decays[i]) * weights[i] - rate * first[i] / (1 - beta1**number) / root
    return [*weights, *first, *second, np.array(float(len(updates)))]


def test_adamw(form):
    ours, rate, factor = Updated(), 0.01, 0.25
    updates = [[random(*shape) for shape in SHAPES] for _ in range(3)]
    for gradients in updates:
        ours.update(gradients, rate, factor)
    wanted = numpy_adamw(ours, [[factor * gradient for gradient in gradients] for gradients in updates], rate)
    for found, truth in zip(ours.state(), wanted, strict=True):
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_adamw_changes_nothing_where_the_factor_is_zero(form, bad):
    ours = Updated()
    ours.update([random(*shape) for shape in SHAPES], 0.01, 1.0)
    before = ours.state()
    ours.update([np.full(shape, bad) for shape in SHAPES], 0.01, 0.0)
    for found, wanted in zip(ours.state(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_moments_are_set_as_they_are_split(form):
    ours = Updated()
    parts = [random(*shape).astype(np.float32) for shape in SHAPES]
    set_moments(ours.moments[1], parts)
    for found, wanted in zip(split_moments(ours.moments[1], ours.weights), parts, strict=True):
        np.testing.assert_array_equal(found, wanted)
