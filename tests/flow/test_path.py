import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen.flow import path as flow

RNG = np.random.default_rng(0)


def test_the_path_leads_from_noise_to_data():
    data, noise = RNG.standard_normal((2, 5))
    np.testing.assert_array_equal(flow.interpolate(data, noise, 0.0), noise)
    np.testing.assert_allclose(flow.interpolate(data, noise, 1.0), data + 1e-5 * noise)


def test_velocity_is_the_paths_derivative():
    data, noise = RNG.standard_normal((2, 5))
    for t in (0.1, 0.5, 0.9):
        numeric = (flow.interpolate(data, noise, t + 1e-5) - flow.interpolate(data, noise, t - 1e-5)) / 2e-5
        np.testing.assert_allclose(numeric, flow.velocity(data, noise), atol=1e-8)


def test_training_times_have_a_standard_normal_logit():
    t = flow.logit_normal(np.random.default_rng(0), 20000).astype(np.float64)
    logit = np.log(t / (1 - t))
    assert 0 < t.min() < t.max() < 1
    assert abs(logit.mean()) < 0.03
    assert abs(logit.std() - 1) < 0.03


def test_uniform_times_prefer_none():
    count = 20000
    t = np.sort(flow.uniform(np.random.default_rng(0), count).astype(np.float64))
    assert 0 < t[0] < t[-1] < 1
    assert abs(t.mean() - 1 / 2) < 3.7 * (12 * count) ** -0.5
    assert abs(t.var() - 1 / 12) < 3.7 * (180 * count) ** -0.5
    steps = np.arange(count + 1) / count
    distance = max((steps[1:] - t).max(), (t - steps[:-1]).max())  # Kolmogorov-Smirnov
    assert distance < 1.95 * count**-0.5  # p = 0.001


@pytest.mark.parametrize("extreme", [0, 2**23 - 1])
def test_uniform_times_are_never_0_or_1_in_float32(extreme):
    class Extreme:
        def integers(self, low, high, count):
            assert low <= extreme < high
            return np.full(count, extreme)

    (t,) = flow.uniform(Extreme(), 1)
    assert t.dtype == np.float32
    assert 0 < t < 1


def test_shifted_times_are_stable_diffusion_3s():
    t = np.random.default_rng(0).random(1000).astype(np.float32)
    noise, shift = 1 - t.astype(np.float64), 3.0
    np.testing.assert_allclose(flow.shifted(t, shift), 1 - shift * noise / (1 + (shift - 1) * noise), atol=1e-6)
    np.testing.assert_array_equal(flow.shifted(t, 1.0), t)


def test_a_shift_moves_the_mean_logit_of_training_times():
    t = flow.training_times(np.random.default_rng(0), 20000, "logit-normal", 3.0)
    assert t.dtype == np.float32
    logit = np.log(t / (1 - t.astype(np.float64)))
    assert abs(logit.mean() + np.log(3)) < 0.03
    assert abs(logit.std() - 1) < 0.03


@pytest.mark.parametrize(("name", "draw"), [("logit-normal", flow.logit_normal), ("uniform", flow.uniform)])
def test_training_times_by_name(name, draw):
    found = flow.training_times(np.random.default_rng(3), 50, name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, draw(np.random.default_rng(3), 50))


def test_validation_times_are_midpoints():
    np.testing.assert_allclose(flow.validation_times(4), [0.125, 0.375, 0.625, 0.875])


class Linear(nn.Cell):
    """A stand-in network that shows what it was given."""

    def construct(self, x, timestep, ul2, metaclip, byt5, keep):
        return 2 * x + timestep.reshape(-1, 1, 1, 1, 1)


def test_loss_against_numpy():
    data, noise = RNG.standard_normal((2, 2, 1, 1, 2, 2)).astype(np.float32)
    t = np.array([0.25, 0.75], np.float32)
    empty = ms.Tensor(np.zeros((2, 1, 1)), ms.float32)
    inputs = (*(ms.Tensor(a) for a in (data, noise, t)), empty, empty, empty, empty)
    loss, of_each = (cell(Linear())(*inputs) for cell in (flow.FlowMatchingLoss, flow.SampleLosses))
    shaped = t.reshape(2, 1, 1, 1, 1)
    predicted = 2 * flow.interpolate(data, noise, shaped) + 1000 * (1 - shaped)
    squares = (predicted - flow.velocity(data, noise)) ** 2
    assert float(loss) == pytest.approx(np.mean(squares), rel=1e-5)
    np.testing.assert_allclose(of_each.asnumpy(), [np.mean(one) for one in squares], rtol=1e-5)
