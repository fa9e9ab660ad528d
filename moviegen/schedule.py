"""Time grids of the sampler: pure functions from a number of steps to `steps + 1` ascending times.

t runs from 0 (noise) to 1 (data); the sampler takes one Euler step between each pair of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moviegen.config import nearest


def linear(steps: int) -> np.ndarray:
    """Equal steps: (steps + 1,) float64."""
    _check(steps)
    return np.arange(steps + 1) / steps


def linear_quadratic(steps: int, linear_steps_of: int = 1000) -> np.ndarray:
    """The first half of the times from a fine linear grid, then steps that grow quadratically to 1 (paper 3.4.2).

    Most of a video's scene and motion is settled in the first steps, so those are as short as those of a
    `linear_steps_of`-step linear schedule. As in the released implementation the quadratic part starts anew, with
    slope zero, from the last linear time; an odd `steps` gives the odd time to the linear part.

    Args:
        steps: number of Euler steps, at least 2.
        linear_steps_of: N of the linear schedule that is followed at first.

    Returns:
        (steps + 1,) float64.
    """
    _check(steps)
    followed = (steps + 1) // 2
    if followed > linear_steps_of:
        raise ValueError(
            f"{steps} steps cannot follow a linear schedule of only {linear_steps_of} steps for half the way"
        )
    start = np.arange(followed) / linear_steps_of
    rest = steps + 1 - followed
    rise = np.arange(1, rest + 1) / rest
    return np.concatenate([start, start[-1] + (1 - start[-1]) * rise**2])


SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {"linear": linear, "linear-quadratic": linear_quadratic}


def get(name: str, steps: int) -> np.ndarray:
    """The times of the schedule called `name`.

    Raises:
        ValueError: no such schedule, or no step at all.
    """
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}{nearest(name, SCHEDULES)}; there are: {', '.join(SCHEDULES)}")
    return SCHEDULES[name](steps)


def _check(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, not {steps}")
