import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.config import LRScheduler, Optimizer
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.train.optim import AdamW, LearningRate, LossScale, decays
from moviegen.train.step import Step

LR = 0.05
BETA1, BETA2 = 0.9, 0.95


class Linear(nn.Cell):
    """Mean squared error of x w + b + the first row of a table, whose second row therefore has no gradient."""

    def __init__(self):
        super().__init__()
        self.w = ms.Parameter(ms.Tensor(np.arange(6).reshape(2, 3) / 3, ms.float32))
        self.b = ms.Parameter(ms.Tensor([1.0, 2.0, 3.0], ms.float32))
        self.table = ms.Parameter(ms.Tensor([[0.5, -0.5, 1.0], [4.0, 5.0, 6.0]], ms.float32))

    def construct(self, x, y):
        error = ops.matmul(x, self.w) + self.b + self.table[0] - y
        return (error * error).mean()


def numpy_gradients(weights, x, y):
    error = (x @ weights["w"] + weights["b"] + weights["table"][0] - y) * 2 / y.size
    return {"w": x.T @ error, "b": error.sum(0), "table": np.stack([error.sum(0), np.zeros(3)])}


@pytest.mark.parametrize(
    ("weight_decay", "micro_batches", "clip_norm", "eps"), [(0.0, 1, 100.0, 1e-15), (0.3, 2, 2.5, 1e-3)]
)
def test_updates_against_numpy(weight_decay, micro_batches, clip_norm, eps):
    net = Linear()
    parameters = dict(net.parameters_and_names())
    config = Optimizer(betas=(BETA1, BETA2), eps=eps, weight_decay=weight_decay)
    zero = Zero(net, 0, World())
    step = Step(net, zero, AdamW(zero.masters, config, zero.shapes), micro_batches, clip_norm, has_terms=False)

    rng = np.random.default_rng(0)
    weights = {name: parameter.asnumpy().astype(np.float64) for name, parameter in parameters.items()}
    first, second = ({name: np.zeros_like(array) for name, array in weights.items()} for _ in range(2))
    clipped = []
    for update in range(1, 21):
        gradients, loss = {name: np.zeros_like(array) for name, array in weights.items()}, 0
        batches = [(rng.standard_normal((4, 2)), rng.standard_normal((4, 3))) for _ in range(micro_batches)]
        for x, y in batches:
            error = x @ weights["w"] + weights["b"] + weights["table"][0] - y
            loss += (error**2).mean() / micro_batches
            for name, gradient in numpy_gradients(weights, x, y).items():
                gradients[name] += gradient / micro_batches
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        found = step([tuple(ms.Tensor(array, ms.float32) for array in batch) for batch in batches], LR)
        assert found == pytest.approx([loss, norm], rel=1e-4)
        clipped.append(norm > clip_norm)
        for name, gradient in gradients.items():
            gradient = gradient * min(1, clip_norm / norm)
            first[name] = BETA1 * first[name] + (1 - BETA1) * gradient
            second[name] = BETA2 * second[name] + (1 - BETA2) * gradient**2
            mean, variance = first[name] / (1 - BETA1**update), second[name] / (1 - BETA2**update)
            decay = weight_decay if name == "w" else 0
            weights[name] -= LR * (decay * weights[name] + mean / (np.sqrt(variance) + eps))
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.asnumpy(), weights[name], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(parameters["table"].asnumpy()[1], [4, 5, 6])
    if clip_norm < 100:
        assert set(clipped) == {True, False}, "the data no longer exercises both sides of the clipping"


@pytest.mark.parametrize(("name", "shape", "does"), [
    ("layers.0.mlp.up_proj.weight", (8, 4), True),
    ("conv.weight", (4, 4, 3, 3), True),
    ("conv.bias", (4,), False),
    ("norm.gamma", (4,), False),
    ("layers.0.scale_shift_table", (1, 6, 4), False),
    ("pos_embedding_table_t.embedding_table", (8, 4), False),
])  # fmt: skip
def test_weight_decay_is_for_matrices(name, shape, does):
    assert decays(name, shape) is does


def scheduler(**changes):
    values = {"lr": 1.0, "warmup_steps": 4, "factor": 0.5, "patience": 2, "min_delta": 0.1, "min_lr": 0.2}
    return LRScheduler(**values | changes)


def test_rate_warms_up_linearly_and_then_stays():
    rate = LearningRate(scheduler())
    assert [rate.at(step) for step in (1, 2, 3, 4, 5, 100)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert LearningRate(scheduler(warmup_steps=0)).at(1) == 1.0


# validation loss -> rate after it: 9.5 and 8.95 are less than a tenth below the best, 8.9 is more than a tenth below 10
PLATEAU = [(10, 1.0), (9.5, 1.0), (8.9, 1.0), (8.95, 1.0), (8.5, 0.5), (8.5, 0.5), (8.5, 0.25), (9, 0.25), (9, 0.2)]


def test_rate_halves_on_a_plateau_down_to_its_floor():
    rate, before = LearningRate(scheduler()), 1.0
    for number, (loss, wanted) in enumerate(PLATEAU):
        is_cut = rate.observe(loss)
        assert (rate.at(10), is_cut) == (wanted, wanted < before), f"after validation {number}"
        before = wanted


@pytest.mark.parametrize("seen", range(len(PLATEAU)))
def test_restored_rate_goes_on_as_if_never_interrupted(seen):
    rate = LearningRate(scheduler())
    for loss, _ in PLATEAU[:seen]:
        rate.observe(loss)
    restored = LearningRate(scheduler())
    restored.restore(json.loads(json.dumps(rate.state())))
    for loss, wanted in PLATEAU[seen:]:
        restored.observe(loss)
        assert restored.at(10) == wanted


def test_the_loss_scale_halves_at_an_overflow_and_doubles_after_many_updates_without():
    scale = LossScale(1024.0)
    assert scale.observe(False)
    assert scale.value == 512
    for _ in range(LossScale.GROW_AFTER - 1):
        assert scale.observe(True)
    assert scale.value == 512
    assert scale.observe(True)
    assert scale.value == 1024
    for _ in range(LossScale.GROW_AFTER - 1):
        scale.observe(True)
    scale.observe(False)  # the count starts over
    scale.observe(True)
    assert scale.value == 512


def test_training_ends_when_the_loss_scale_would_fall_below_one():
    scale = LossScale(4.0)
    assert [scale.observe(False) for _ in range(3)] == [True, True, False]


def test_a_fixed_loss_scale_stays_and_an_overflow_ends_training():
    scale = LossScale()
    assert all(scale.observe(True) for _ in range(LossScale.GROW_AFTER + 1))
    assert scale.value == 1
    assert not scale.observe(False)
    assert scale.value == 1


def test_a_restored_loss_scale_goes_on_as_if_never_interrupted():
    scale, other = LossScale(1024.0), LossScale(64.0)
    for _ in range(LossScale.GROW_AFTER - 2):
        scale.observe(True)
    other.restore(json.loads(json.dumps(scale.state())))
    for one in (scale, other):
        one.observe(True)
        assert one.value == 1024
        one.observe(True)
        assert one.value == 2048


@pytest.mark.parametrize(("before", "now"), [(1.0, 1024.0), (1024.0, 1.0)])
def test_the_loss_scale_of_other_arithmetic_is_not_taken(before, now):
    scale = LossScale(now)
    scale.restore(LossScale(before).state())
    assert scale.value == now
