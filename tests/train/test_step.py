import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.config import Optimizer
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.train.optim import AdamW
from moviegen.train.step import Apply, Backward, Gradients

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.standard_normal((3, 2)), RNG.standard_normal(2)
X = RNG.standard_normal((2, 4, 3))  # two micro-batches


class Terms(nn.Cell):
    """Returns more than the loss: a large term that must leave the gradients alone."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(WEIGHT, ms.float32))
        self.bias = ms.Parameter(ms.Tensor(BIAS, ms.float32))

    def construct(self, x):
        hidden = ops.tanh(ops.matmul(x, self.weight) + self.bias)
        return hidden.mean(), 100 * (self.weight * self.weight).sum(), (hidden * self.bias).sum()


def numpy_loss(weight, bias, x):
    return np.tanh(x @ weight + bias).mean()


def finite_differences(of, array, step=1e-5):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        shift = np.zeros_like(array)
        shift[index] = step
        gradient[index] = (of(array + shift) - of(array - shift)) / (2 * step)
    return gradient


@pytest.fixture(scope="module")
def parts():
    loss = Terms()
    zero = Zero(loss, 0, World())
    gradients = Gradients(zero)
    backward = Backward(loss, zero, gradients, has_terms=True)
    return backward, gradients, Apply(AdamW(zero.masters, Optimizer(), zero.shapes), zero, gradients, 2, 1.0)


def test_first_output_alone_is_differentiated_and_micro_batches_add_up(parts):
    backward, gradients, _ = parts
    for x in X:
        total, squares, _ = backward(ms.Tensor(x, ms.float32))
        assert float(total) == pytest.approx(numpy_loss(WEIGHT, BIAS, x), rel=1e-5)
        assert float(squares) == pytest.approx(100 * (WEIGHT**2).sum(), rel=1e-5)
    bias, weight = (total.asnumpy() for total in gradients.sums)  # the last first, as their gradients come
    of_weight = finite_differences(lambda w: sum(numpy_loss(w, BIAS, x) for x in X), WEIGHT)
    of_bias = finite_differences(lambda b: sum(numpy_loss(WEIGHT, b, x) for x in X), BIAS)
    np.testing.assert_allclose(weight, of_weight, atol=1e-6)
    np.testing.assert_allclose(bias, of_bias, atol=1e-6)


def test_update_starts_the_sums_over(parts):
    backward, gradients, apply = parts
    backward(ms.Tensor(X[0], ms.float32))
    assert all(total.asnumpy().any() for total in gradients.sums)
    apply(0.0)
    assert not any(total.asnumpy().any() for total in gradients.sums)


def test_the_loss_scale_changes_neither_the_norm_nor_the_update():
    updated = []
    for scale in (1.0, 1024.0):
        loss = Terms()
        zero = Zero(loss, 0, World())
        gradients = Gradients(zero)
        backward = Backward(loss, zero, gradients, has_terms=True)
        apply = Apply(AdamW(zero.masters, Optimizer(), zero.shapes), zero, gradients, 1, 0.01)
        backward.scale.set_data(ms.Tensor(scale, ms.float32))
        value = float(backward(ms.Tensor(X[0], ms.float32))[0])
        assert value == pytest.approx(numpy_loss(WEIGHT, BIAS, X[0]), rel=1e-5)
        norm = apply(0.1, scale)
        updated.append((norm, *(weight.asnumpy() for weight in zero.weights.values())))
    for one, other in zip(*updated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_an_overflow_reaches_no_weight_and_clears_the_sums(parts):
    backward, gradients, apply = parts
    weights = apply.update.weights
    before = [weight.asnumpy().copy() for weight in weights]
    backward(ms.Tensor(np.full_like(X[0], np.nan), ms.float32))
    assert not np.isfinite(apply(0.1))
    for weight, old in zip(weights, before, strict=True):
        np.testing.assert_array_equal(weight.asnumpy(), old)
    assert not any(total.asnumpy().any() for total in gradients.sums)
