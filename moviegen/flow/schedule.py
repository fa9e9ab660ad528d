"""Time grids of the sampler: pure functions from a number of steps to `steps + 1` ascending times.

t runs from 0 (noise) to 1 (data); the sampler takes one Euler step between each pair of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moviegen.config import ConfigError, nearest


def linear(steps: int) -> np.ndarray:
    """Equal steps: (steps + 1,) float64."""
    _check(steps)
    return np.arange(steps + 1) / steps


# 3.4.2: the linear-quadratic schedule
def linear_quadratic(steps: int, linear_steps_of: int = 1000) -> np.ndarray:
    """The first half of the times from a fine linear grid, then steps that grow quadratically to 1 (paper 3.4.2).

    Most of a video's scene and motion is settled in the first steps, so those are as short as those of a
    `linear_steps_of`-step linear schedule. As in the released implementation the quadratic part starts anew, with
    slope zero, from the last linear time; an odd `steps` gives the odd time to the linear part.

    Args:
        steps: number of Euler steps, at least 1.
        linear_steps_of: N of the linear schedule that is followed at first.

    Returns:
        (steps + 1,) float64.

    Raises:
        ConfigError: the linear part would not end: half of `steps` is more than `linear_steps_of`.
    """
    _check(steps)
    followed = (steps + 1) // 2
    if followed > linear_steps_of:
        raise ConfigError(
            f"{steps} steps cannot follow a linear schedule of only {linear_steps_of} steps for half the way"
        )
    start = np.arange(followed) / linear_steps_of
    rest = steps + 1 - followed
    rise = np.arange(1, rest + 1) / rest
    return np.concatenate([start, start[-1] + (1 - start[-1]) * rise**2])


def linear_quadratic_smooth(steps: int, threshold: float = 0.025) -> np.ndarray:
    """The first half of the steps are equal and lead to `threshold`; the quadratic rest goes on with their slope.

    Mochi 1 samples so. Nothing jumps where the parts meet: step 26 of 50 begins at the pace of 1/1000 a step at which
    step 25 ended, where `linear_quadratic` begins anew from rest. An odd `steps` gives the odd step to the quadratic
    part; a single step has no halves and goes all the way.

    Args:
        threshold: t at the end of the linear part, the share of the noise that is removed by then.

    Returns:
        (steps + 1,) float64.
    """
    _check(steps)
    if steps == 1:
        return linear(1)
    half = steps // 2
    slope = threshold / half
    rest = np.arange(1, steps - half + 1)
    curvature = (1 - threshold - slope * rest[-1]) / rest[-1] ** 2  # so that the last time is 1
    return np.concatenate([slope * np.arange(half + 1), threshold + slope * rest + curvature * rest**2])


SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
    "linear": linear,
    "linear-quadratic": linear_quadratic,
    "linear-quadratic-smooth": linear_quadratic_smooth,
}


def get(name: str, steps: int) -> np.ndarray:
    """The times of the schedule called `name`.

    Raises:
        ConfigError: no such schedule, or it cannot have so many steps.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"no schedule {name!r}{nearest(name, SCHEDULES)}; there are: {', '.join(SCHEDULES)}")
    return SCHEDULES[name](steps)


def _check(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"a schedule needs at least one step, not {steps}")
