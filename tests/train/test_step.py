import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.config import Optimizer
from moviegen.train.optim import AdamW
from moviegen.train.step import Accumulators, Apply, Backward

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
    optimizer = AdamW(dict(loss.parameters_and_names()), Optimizer())
    accumulators = Accumulators(optimizer.weights)
    backward = Backward(loss, optimizer.weights, accumulators, has_terms=True)
    return backward, accumulators, Apply(optimizer, accumulators, 2, 1.0, world=1)


def test_first_output_alone_is_differentiated_and_micro_batches_add_up(parts):
    backward, accumulators, _ = parts
    for x in X:
        total, squares, _ = backward(ms.Tensor(x, ms.float32))
        assert float(total) == pytest.approx(numpy_loss(WEIGHT, BIAS, x), rel=1e-5)
        assert float(squares) == pytest.approx(100 * (WEIGHT**2).sum(), rel=1e-5)
    weight, bias = (total.asnumpy() for total in accumulators.sums)
    of_weight = finite_differences(lambda w: sum(numpy_loss(w, BIAS, x) for x in X), WEIGHT)
    of_bias = finite_differences(lambda b: sum(numpy_loss(WEIGHT, b, x) for x in X), BIAS)
    np.testing.assert_allclose(weight, of_weight, atol=1e-6)
    np.testing.assert_allclose(bias, of_bias, atol=1e-6)


def test_update_starts_the_sums_over(parts):
    backward, accumulators, apply = parts
    backward(ms.Tensor(X[0], ms.float32))
    assert all(total.asnumpy().any() for total in accumulators.sums)
    apply(ms.Tensor(0.0, ms.float32))
    assert not any(total.asnumpy().any() for total in accumulators.sums)
