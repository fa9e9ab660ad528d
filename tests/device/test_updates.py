"""Gradients' length, AdamW and the moving average against NumPy in float64, in both forms and with any threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moviegen.device import compiled

ROOT = Path(__file__).parents[2]
SHAPES = [(7, 5), (1,), (), (40, 1001), (3, 2, 3, 3), (16384,), (16385,)]
DECAYS = [0.1, 0.0, 0.0, 0.3, 0.1, 0.0, 0.2]
BETAS, EPS, RATE, AVERAGED = (0.9, 0.95), 1e-8, 0.01, 0.98
FACTORS = (1.0, 0.25, 0.0, 3.0)  # of four updates, the third of which does not happen: its gradients are not finite


def tensors(seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def gradients(update):
    arrays = tensors(update)
    if not FACTORS[update - 1]:
        arrays[3][2, 7], arrays[0][0, 0] = np.nan, np.inf
    return arrays


def child(folder):
    """What this process's form makes of them."""
    import mindspore as ms
    from mindspore import Parameter, nn, ops

    from moviegen import device
    from moviegen.device.updates import AdamWUpdate, MovingAverage, SumOfSquares, split_moments, zero_moments

    class Update(nn.Cell):
        def __init__(self, weights):
            super().__init__()
            self.weights = ms.ParameterTuple(tuple(weights.values()))
            self.moment1, self.moment2 = (zero_moments(name, weights) for name in ("moment1", "moment2"))
            self.updates = Parameter(ms.Tensor(0, ms.float32), name="updates")
            self.update, self.squares = AdamWUpdate(DECAYS, BETAS, EPS), SumOfSquares()
            self.average = MovingAverage(self.weights, AVERAGED) if compiled.is_compiled() else None

        def construct(self, factor, *gradients):
            rate = ms.Tensor(RATE, ms.float32)
            done = self.update(self.weights, self.moment1, self.moment2, gradients, self.updates, rate, factor)
            if self.average is not None:
                done = ops.depend(done, self.average(ops.depend(factor, done), ops.depend(self.updates, done)))
            return ops.depend(self.squares(gradients), done)

    device.start(0)
    weights = {str(i): Parameter(ms.Tensor(array), name=str(i)) for i, array in enumerate(tensors(0))}
    update, squares = Update(weights), []
    for number, factor in enumerate(FACTORS, 1):
        squares.append(float(update(ms.Tensor(factor, ms.float32), *map(ms.Tensor, gradients(number)))))
    parts = {"weight": [weight.asnumpy() for weight in update.weights]} | {
        name: list(split_moments(moments, update.weights))
        for name, moments in (("moment1", update.moment1), ("moment2", update.moment2))
    }
    arrays = {f"{kind} {i}": one for kind, part in parts.items() for i, one in enumerate(part)}
    if update.average is not None:
        arrays |= {f"average {i}": array for i, array in enumerate(update.average.arrays())}
    np.savez(folder, squares=squares, updates=update.updates.asnumpy(), **arrays)


def computed(folder, name, **environment):
    folder = folder / f"{name}.npz"
    command = (sys.executable, "-c", f"from tests.device.test_updates import child; child({json.dumps(str(folder))})")
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | environment)
    return dict(np.load(folder))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each form, and of the compiled one by thread."""
    folder = tmp_path_factory.mktemp("updates")
    found = {"mindspore": computed(folder, "mindspore", **{compiled.CHOICE: "mindspore"})}
    if compiled.is_compiled():
        for threads in ("1", "2"):
            found[threads] = computed(folder, threads, **{compiled.CHOICE: "compiled", compiled.THREADS: threads})
    return found


@pytest.fixture(scope="module")
def wanted():
    """By NumPy, in float64."""
    weights = [array.astype(float) for array in tensors(0)]
    averages = [array.copy() for array in weights]
    first, second = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
    number = 0
    for update, factor in enumerate(FACTORS, 1):
        if not factor:
            continue
        number += 1
        for i, gradient in enumerate(gradients(update)):
            g = factor * gradient.astype(float)
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * g
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * g**2
            mean, variance = first[i] / (1 - BETAS[0] ** number), second[i] / (1 - BETAS[1] ** number)
            weights[i] -= RATE * (DECAYS[i] * weights[i] + mean / (np.sqrt(variance) + EPS))
            decay = min(AVERAGED, (1 + number) / (10 + number))
            averages[i] = decay * averages[i] + (1 - decay) * weights[i]
    parts = {"weight": weights, "moment1": first, "moment2": second, "average": averages}
    return {f"{kind} {i}": array for kind, part in parts.items() for i, array in enumerate(part)}


@pytest.mark.parametrize("form", ["mindspore", "1", "2"])
def test_an_update_is_that_of_numpy(form, results, wanted):
    if form not in results:
        pytest.skip("no compiler")
    found = results[form]
    assert found["updates"] == 3
    for name, array in wanted.items():
        if name in found:
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert ("average 0" in found) == (form != "mindspore")  # MindSpore's form is NumPy itself, `train.ema`
    squares = [sum((g.astype(float) ** 2).sum() for g in gradients(update)) for update in (1, 2, 4)]
    np.testing.assert_allclose(found["squares"][[0, 1, 3]], squares, rtol=1e-6)
    assert not np.isfinite(found["squares"][2])


def test_one_thread_and_two_give_the_same_bits(results):
    if "1" not in results:
        pytest.skip("no compiler")
    for name, array in results["1"].items():
        assert array.tobytes() == results["2"][name].tobytes(), name
