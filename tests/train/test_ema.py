"""The average of the weights: its formula, and that swapping it in cannot lose the weights."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.train.ema import EMA
from tests.train.conftest import Regression


@pytest.fixture
def parts():
    net = Regression()
    zero = Zero(net, 0, World())
    return net, zero, EMA(zero, decay=0.9)


def update(ema, number):
    """The `number`-th, in whichever form."""
    if ema.in_graph is None:
        ema.update(number)
    else:
        ema.in_graph(ms.Tensor(1, ms.float32), ms.Tensor(number, ms.float32))


def set_all(net, value):
    for parameter in net.get_parameters():
        parameter.set_data(ms.Tensor(np.full(parameter.shape, value), ms.float32))


def test_it_starts_as_the_weights_and_follows_its_formula(parts):
    net, zero, ema = parts
    wanted = {name: array.copy() for name, array in zero.arrays().items()}
    for name, array in ema.arrays().items():
        np.testing.assert_array_equal(array, wanted[name])
    decays = {1: 2 / 11, 2: 3 / 12, 79: 80 / 89, 80: 0.9, 999: 0.9}
    for value, (number, decay) in enumerate(decays.items(), -2):
        set_all(net, value)
        update(ema, number)
        wanted = {name: decay * array + (1 - decay) * value for name, array in wanted.items()}
    for name, array in ema.arrays().items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-6)


def test_swapping_gives_the_average_and_then_the_weights_back_also_after_an_error(parts):
    net, _, ema = parts
    before = net.weight.asnumpy().copy()
    set_all(net, 3.0)
    with pytest.raises(KeyboardInterrupt), ema.swapped():
        np.testing.assert_array_equal(net.weight.asnumpy(), before)
        raise KeyboardInterrupt
    np.testing.assert_array_equal(net.weight.asnumpy(), np.full_like(before, 3.0))
    np.testing.assert_array_equal(ema.arrays()["weight"], before)


def test_whole_averages_are_taken_from_a_checkpoint(parts):
    net, _, ema = parts
    saved = {name: np.full(parameter.shape, 7, np.float32) for name, parameter in net.parameters_and_names()}
    ema.set_arrays(saved)
    update(ema, 1000)
    np.testing.assert_allclose(ema.arrays()["bias"], 0.9 * 7 + 0.1 * net.bias.asnumpy(), rtol=1e-6)
    assert (saved["bias"] == 7).all()
