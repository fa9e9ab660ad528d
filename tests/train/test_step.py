import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.config import Optimizer
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.train.optim import AdamW
from moviegen.train.step import Backward, Gradients, Step

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


def step_of(micro_batches, clip_norm=1.0):
    """A step on a network of its own."""
    loss = Terms()
    zero = Zero(loss, 0, World())
    optimizer = AdamW(zero.masters, Optimizer(eps=1e-8, weight_decay=0.1), zero.shapes)
    return Step(loss, zero, optimizer, micro_batches, clip_norm, has_terms=True)


def state_of(step):
    """All that an update changes."""
    moments = {name: moment for name, _, moment in step.optimizer.moments()}
    parameters = step.zero.weights | {"updates": step.optimizer.updates}
    return {name: np.array(held) for name, held in (parameters | moments).items()}


def batches(*arrays):
    return [(ms.Tensor(x, ms.float32),) for x in arrays]


@pytest.fixture(params=[1, 2], ids=["in one graph", "with sums"])
def step(request):
    return step_of(request.param)


def test_first_output_alone_is_differentiated_and_micro_batches_add_up():
    loss = Terms()
    zero = Zero(loss, 0, World())
    gradients = Gradients(zero)
    backward = Backward(loss, zero, gradients, has_terms=True)
    for x in X:
        total, squares, _ = backward(ms.Tensor(x, ms.float32))
        assert float(total) == pytest.approx(numpy_loss(WEIGHT, BIAS, x), rel=1e-5)
        assert float(squares) == pytest.approx(100 * (WEIGHT**2).sum(), rel=1e-5)
    bias, weight = (total.asnumpy() for total in gradients.sums)  # the last first, as their gradients come
    of_weight = finite_differences(lambda w: sum(numpy_loss(w, BIAS, x) for x in X), WEIGHT)
    of_bias = finite_differences(lambda b: sum(numpy_loss(WEIGHT, b, x) for x in X), BIAS)
    np.testing.assert_allclose(weight, of_weight, atol=1e-6)
    np.testing.assert_allclose(bias, of_bias, atol=1e-6)


def test_the_graph_of_one_micro_batch_equals_those_of_two_alike():
    one, two = step_of(1, clip_norm=0.1), step_of(2, clip_norm=0.1)
    for x in RNG.standard_normal((5, 4, 3)):
        np.testing.assert_allclose(one(batches(x), 0.1), two(batches(x, x), 0.1), rtol=1e-5)
        for name, wanted in state_of(two).items():
            np.testing.assert_allclose(state_of(one)[name], wanted, atol=1e-6, err_msg=name)


def test_every_term_is_of_the_weights_before_the_update():
    """In one graph the weights change in place: nothing may read them late, also what needs no gradient."""
    step = step_of(1)
    for x in RNG.standard_normal((5, 4, 3)):
        before = state_of(step)
        total, squares, _, norm = step(batches(x), 0.1)
        assert squares == pytest.approx(100 * (before["weight"] ** 2).sum(), rel=1e-5)
        assert total == pytest.approx(numpy_loss(before["weight"], before["bias"], x), abs=1e-6)
        of_weight = finite_differences(lambda w: numpy_loss(w, before["bias"], x), before["weight"].astype(float))  # noqa: B023
        of_bias = finite_differences(lambda b: numpy_loss(before["weight"], b, x), before["bias"].astype(float))  # noqa: B023
        assert norm == pytest.approx(np.sqrt((of_weight**2).sum() + (of_bias**2).sum()), rel=1e-4)
        assert np.abs(state_of(step)["weight"] - before["weight"]).max() > 0.01


def test_sums_are_kept_where_there_are_more_micro_batches_and_start_over_at_an_update():
    assert step_of(1).bytes_held()["gradients"] == 0
    step = step_of(2)
    assert step.bytes_held()["gradients"] == 4 * (WEIGHT.size + BIAS.size)
    for x in X:
        step.backward(ms.Tensor(x, ms.float32))
    assert all(total.asnumpy().any() for total in step.sums)
    step.finish(ms.Tensor(0.1, ms.float32))
    assert not any(total.asnumpy().any() for total in step.sums)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_loss_scale_changes_neither_the_norm_nor_the_update(micro_batches):
    plain, scaled = step_of(micro_batches, clip_norm=0.01), step_of(micro_batches, clip_norm=0.01)
    given = batches(*X[:micro_batches])
    np.testing.assert_allclose(scaled(given, 0.1, 1024.0), plain(given, 0.1), rtol=1e-6)
    for name, wanted in state_of(plain).items():
        np.testing.assert_allclose(state_of(scaled)[name], wanted, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("updates_before", [0, 2])
def test_a_gradient_that_is_not_finite_changes_nothing(step, poison, updates_before):
    good = batches(X[0]) * (2 if step.sums else 1)
    for _ in range(updates_before):
        step(good, 0.1)
    before = state_of(step)
    bad = X[0].copy()
    bad[1, 2] = poison
    values = step([*good[1:], *batches(bad)], 0.1)
    assert not np.isfinite(values[-1])
    assert_same(state_of(step), before)
    untouched = step_of(2 if step.sums else 1)
    for _ in range(updates_before):
        untouched(good, 0.1)
    np.testing.assert_array_equal(step(good, 0.1), untouched(good, 0.1))  # as if it had not been
    assert_same(state_of(step), state_of(untouched))


def assert_same(found, wanted):
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
