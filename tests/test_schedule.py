from pathlib import Path

import numpy as np
import pytest

from moviegen import schedule

GOLDEN = Path(__file__).parents[1] / ".." / "shared" / "golden" / "reference_schedule.npz"


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


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'linear-quadratic'"):
        schedule.get("linear_quadratic", 50)


def test_impossible_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="at least one step"):
        schedule.get("linear", 0)
    with pytest.raises(ValueError, match="only 10 steps"):
        schedule.linear_quadratic(50, linear_steps_of=10)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
@pytest.mark.parametrize("steps", (10, 25, 50, 51, 100))
def test_equals_the_released_implementation(name, steps):
    if not GOLDEN.is_file():
        pytest.skip(f"the released implementation's numbers are not here: {GOLDEN.resolve()}")
    timesteps = np.load(GOLDEN)[f"{name}_{steps}"]
    np.testing.assert_allclose(1000 * (1 - schedule.get(name, steps)[:-1]), timesteps, atol=1e-9, rtol=0)
