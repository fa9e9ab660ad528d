"""What is foretold on the way, against velocities whose answer is known."""

import numpy as np
import pytest

from moviegen.flow import denoising, schedule
from moviegen.flow.sampler import euler


@pytest.mark.parametrize(
    ("steps", "count", "wanted"), [(50, 6, [0, 10, 20, 30, 40, 50]), (3, 8, [0, 1, 2, 3]), (1, 4, [0, 1])]
)
def test_stops_are_evenly_spread_and_each_is_there_once(steps, count, wanted):
    assert denoising.stops(steps, count) == wanted


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_on_a_straight_way_the_end_is_foretold_from_the_start(name):
    start, end = np.float32([[0.5, -2, 3]]), np.float32([[4, 1, -1]])
    times = schedule.get(name, 9)
    latents, foretold = denoising.followed(start, lambda x, t: end - start, times, [0, 4, 9])
    np.testing.assert_allclose(foretold, np.stack([end] * 3), atol=1e-5)
    np.testing.assert_allclose(latents, [start + t * (end - start) for t in times[[0, 4, 9]]], atol=1e-5)


def test_what_is_foretold_is_one_last_step_from_where_so_many_steps_lead():
    """dx/dt = 2 x: after two steps to t = 0.1 and 0.4 the rest of the way is one step of 0.6."""
    x, times, told = np.float32([[1], [-3]]), np.array([0, 0.1, 0.4, 1]), []
    found = denoising.followed(x, lambda x, t: 2 * x, times, [0, 2, 3], lambda: told.append(1))
    end = 1.2 * 1.6 * (1 + 2 * 0.6)
    factors = np.array([[1, 1.2 * 1.6, end], [1 + 2, end, end]]).reshape(2, 3, 1, 1)
    np.testing.assert_allclose(found, factors * x, rtol=1e-6)
    for last in found[:, -1]:  # the way itself is the same, to the bit
        assert np.array_equal(last, euler(x, lambda x, t: 2 * x, times))
    assert len(told) == 3
