"""Sampling: Euler's method against solutions in closed form, guidance against NumPy, noise that the seed decides."""

import itertools
import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen import device, sample, schedule

X = np.random.default_rng(0).standard_normal((1, 16, 2, 4, 6)).astype(np.float32)
GRIDS = [(name, steps) for name in schedule.SCHEDULES for steps in (2, 7, 50)]


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_constant_velocity_is_followed_exactly(name, steps):
    slope = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    end = sample.euler(X, lambda x, t: slope, schedule.get(name, steps))
    np.testing.assert_allclose(end, X + slope, atol=1e-5)
    assert end.dtype == np.float32


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_linear_velocity_gives_eulers_product(name, steps):
    times = schedule.get(name, steps)
    factor = math.prod(1 - 0.8 * (float(b) - float(a)) for a, b in itertools.pairwise(times))
    np.testing.assert_allclose(sample.euler(X, lambda x, t: -0.8 * x, times), factor * X, rtol=1e-5)


def test_velocity_is_asked_at_the_start_of_each_step():
    asked = []

    def velocity(x, t):
        asked.append((float(x[0]), t))
        return np.float32([1 + t])

    sample.euler(np.float32([0]), velocity, np.array([0.0, 0.25, 0.75, 1.0]))
    # x rises by 0.25 * 1, then 0.5 * 1.25
    assert asked == [(0.0, 0.0), (0.25, 0.25), (0.875, 0.75)]


def test_start_is_left_as_it_was():
    start = X.copy()
    sample.euler(start, lambda x, t: x, schedule.linear(3))
    assert np.array_equal(start, X)


# the linear part of linear-quadratic has steps of 1/1000 whatever their number: refined with them, so that all shrink
@pytest.mark.parametrize("grid", [schedule.linear, lambda steps: schedule.linear_quadratic(steps, 20 * steps)])
def test_half_the_step_halves_the_error(grid):
    # dx/dt = x + t, x(0) = 1: x(1) = 2e - 2
    errors = [
        2 * math.e - 2 - float(sample.euler(np.float64([1]), lambda x, t: x + t, grid(steps))[0])
        for steps in (100, 200, 400)
    ]
    assert errors[0] > 0.01
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], abs=0.1)


def test_stops_at_the_last_time():
    assert sample.euler(np.float32([0]), lambda x, t: np.float32([1]), np.array([0, 0.5]))[0] == np.float32(0.5)


# --- guidance ---


class Stub(nn.Cell):
    """A network that shows what it was given: x scaled, plus time, plus the sum of the kept tokens of its text."""

    def construct(self, x, t, ul2, metaclip, byt5, keep):
        told = ul2.mean((1, 2)) + 2 * metaclip.mean((1, 2)) + 3 * byt5.mean((1, 2)) + keep.astype(ms.float32).sum(1)
        return 0.5 * x + (0.001 * t + told).reshape(-1, 1, 1, 1, 1)


@pytest.fixture
def embeddings():
    """One caption's, then the empty one's; networks run as they do when sampling."""
    device.start(0)
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((2, length, 4)).astype(np.float32) for length in (3, 2, 5)]
    return (*arrays, np.arange(20).reshape(2, 10) % 3 == 0)


def expected(x, t, embeddings, guidance):
    ul2, metaclip, byt5, keep = (np.asarray(array, np.float64) for array in embeddings)
    told = ul2.mean((1, 2)) + 2 * metaclip.mean((1, 2)) + 3 * byt5.mean((1, 2)) + keep.sum(1)
    with_caption, without = (0.5 * x + 0.001 * 1000 * (1 - t) + one for one in told)
    return (1 - guidance) * without + guidance * with_caption


@pytest.mark.parametrize("guidance", [0, 1, 3])
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_guidance_moves_from_the_empty_caption_to_ours_and_beyond(embeddings, guidance, t):
    velocity = sample.velocity_field(sample.GuidedVelocity(Stub(), float(guidance)), embeddings)
    found = velocity(X, t)
    np.testing.assert_allclose(found, expected(X, t, embeddings, guidance), atol=1e-5)
    assert found.shape == X.shape
    assert found.dtype == np.float32


def test_guidance_values_differ_in_this_test(embeddings):
    ends = [expected(X, 0.5, embeddings, guidance) for guidance in (0, 1, 3)]
    assert min(np.abs(ends[0] - ends[1]).min(), np.abs(ends[1] - ends[2]).min()) > 0.1


def test_two_captions_at_once_are_each_guided_alone(embeddings):
    two = tuple(
        np.concatenate((array[:1], 2 * array[:1] if array.dtype != bool else ~array[:1])) for array in embeddings
    )
    empty = tuple(np.concatenate((array[1:], array[1:])) for array in embeddings)
    x = np.concatenate((X, -X))
    arrays = tuple(np.concatenate(pair) for pair in zip(two, empty, strict=True))
    found = sample.velocity_field(sample.GuidedVelocity(Stub(), 3.0), arrays)(x, 0.5)
    for place in range(2):
        pair = tuple(np.stack((t[place], e[place])) for t, e in zip(two, empty, strict=True))
        np.testing.assert_allclose(found[place : place + 1], expected(x[place : place + 1], 0.5, pair, 3), atol=1e-5)


# --- noise ---


def test_noise_follows_from_the_seed_alone():
    np.random.seed(1)
    ms.set_seed(1)
    one = sample.noise_for(42, (16, 2, 6, 10))
    np.random.seed(2)
    ms.set_seed(2)
    sample.noise_for(7, (3,))
    assert np.array_equal(sample.noise_for(42, (16, 2, 6, 10)), one)
    assert one.shape == (1, 16, 2, 6, 10)
    assert one.dtype == np.float32
    assert np.abs(sample.noise_for(43, (16, 2, 6, 10)) - one).max() > 1


def test_noise_is_standard_normal():
    noise = sample.noise_for(0, (100_000,)).ravel()
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (np.abs(noise) < 1).mean() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)
