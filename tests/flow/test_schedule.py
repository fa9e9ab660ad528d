"""Time grids: worked by hand, against the released implementation's numbers and Mochi 1's formula."""

from typing import get_args

import numpy as np
import pytest

from moviegen.config import ConfigError, Sample
from moviegen.flow import schedule
from tests.golden import SCHEDULES, SETS, STEPS


@pytest.mark.parametrize("name", schedule.SCHEDULES)
@pytest.mark.parametrize("steps", (1, 2, 3, 10, 25, 50, 51, 100))
def test_ascends_from_noise_to_data(name, steps):
    times = schedule.get(name, steps)
    assert times.shape == (steps + 1,)
    assert times[0] == 0
    assert times[-1] == pytest.approx(1, abs=1e-15)
    assert (np.diff(times) > 0).all()


def test_first_half_follows_the_thousand_step_schedule():
    np.testing.assert_array_equal(schedule.linear_quadratic(50)[:25], schedule.linear(1000)[:25])


def test_second_half_is_quadratic():
    second_differences = np.diff(schedule.linear_quadratic(50)[24:], 2)
    np.testing.assert_allclose(second_differences, second_differences[0], rtol=1e-9)


# --- the smooth variant ---


@pytest.mark.parametrize(
    ("steps", "times"),
    [
        (1, [0, 1]),
        (2, [0, 0.025, 1]),
        # the slope 0.025 goes on for two steps, and 0.925 of the way is left for the square of 2
        (3, [0, 0.025, 0.025 + 0.025 + 0.925 / 4, 1]),
        # half the slope; 0.95 is left: 0.0125 k + 0.95 / 4 k^2
        (4, [0, 0.0125, 0.025, 0.275, 1]),
        # three steps of the slope 0.0125, 0.9375 left for the square of 3
        (5, [0, 0.0125, 0.025, 0.0375 + 0.9375 / 9, 0.05 + 0.9375 * 4 / 9, 1]),
    ],
)
def test_smooth_variant_worked_by_hand(steps, times):
    np.testing.assert_allclose(schedule.get("linear-quadratic-smooth", steps), times, atol=1e-15, rtol=0)


def mochi(num_steps, threshold_noise=0.025):
    """Noise levels as Mochi 1 writes them down: a polynomial in the number of the step."""
    linear_steps = num_steps // 2
    quadratic_steps = num_steps - linear_steps
    difference = linear_steps - threshold_noise * num_steps
    square = difference / (linear_steps * quadratic_steps**2)
    slope = threshold_noise / linear_steps - 2 * difference / quadratic_steps**2
    constant = square * linear_steps**2
    linear = [i * threshold_noise / linear_steps for i in range(linear_steps)]
    quadratic = [square * i**2 + slope * i + constant for i in range(linear_steps, num_steps)]
    return [1 - t for t in [*linear, *quadratic, 1.0]]


@pytest.mark.parametrize("steps", (2, 7, 50, 51, 64, 200))
def test_smooth_variant_is_mochis(steps):
    noise = 1 - schedule.get("linear-quadratic-smooth", steps)
    np.testing.assert_allclose(noise, mochi(steps), atol=1e-12, rtol=0)


def test_smooth_variant_too_follows_the_thousand_step_schedule_in_fifty():
    np.testing.assert_allclose(
        schedule.linear_quadratic_smooth(50)[:26], schedule.linear(1000)[:26], atol=1e-15, rtol=0
    )


def slope_after(times, joint):
    """Of the parabola through the joint and the two times after it, at the joint."""
    first, second = np.diff(times[joint : joint + 3])
    return first - (second - first) / 2


@pytest.mark.parametrize("steps", (10, 50, 51, 100))
def test_only_the_smooth_variants_slope_is_continuous(steps):
    smooth, joint = schedule.linear_quadratic_smooth(steps), steps // 2
    assert slope_after(smooth, joint) == pytest.approx(smooth[joint] - smooth[joint - 1], rel=1e-9)
    jumping, joint = schedule.linear_quadratic(steps), (steps + 1) // 2 - 1
    assert slope_after(jumping, joint) == pytest.approx(0, abs=1e-12)
    assert jumping[joint] - jumping[joint - 1] == pytest.approx(0.001)


@pytest.mark.parametrize("threshold", (0.01, 0.1))
def test_threshold_is_reached_half_way(threshold):
    times = schedule.linear_quadratic_smooth(20, threshold)
    assert times[10] == pytest.approx(threshold)
    assert times[-1] == pytest.approx(1)


# --- what is refused ---


def test_parameters_name_just_these_schedules():
    assert get_args(Sample.model_fields["schedule"].annotation) == tuple(schedule.SCHEDULES)


@pytest.mark.parametrize("name", ("linear_quadratic", "cosine", "", "Linear"))
def test_any_other_name_is_refused(name):
    with pytest.raises(ConfigError, match="there are: linear, linear-quadratic, linear-quadratic-smooth"):
        schedule.get(name, 50)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'linear-quadratic'"):
        schedule.get("linear_quadratic", 50)


def test_impossible_numbers_of_steps_are_refused():
    for name in schedule.SCHEDULES:
        with pytest.raises(ConfigError, match="at least one step"):
            schedule.get(name, 0)
    with pytest.raises(ConfigError, match="only 10 steps"):
        schedule.linear_quadratic(50, linear_steps_of=10)


# --- the released implementation ---


@pytest.mark.parametrize("golden", SETS.values(), ids=SETS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", STEPS)
def test_equals_the_released_implementation(golden, name, steps):
    timesteps = golden.read("schedule")[f"{name}_{steps}"]
    np.testing.assert_allclose(1000 * (1 - schedule.get(name, steps)[:-1]), timesteps, atol=1e-9, rtol=0)
