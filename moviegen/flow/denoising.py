"""What the sampler has, and what it foretells, on its way from noise to a clip (paper 3.4.2).

A velocity at (x, t) says where a single step to t = 1 would end: x + (1 - t) v. From noise alone that is a blur of all
that the caption allows; it sharpens as t grows, and is the latent itself at t = 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen.flow import schedule
from moviegen.flow.sampler import Velocity, euler
from moviegen.runs.arrays import read_npz

STOPS = 6  # of a way, at which one looks: its start and its end among them


@dataclass(frozen=True)
class Way:
    """The way by a schedule of so many steps to one prompt's latent, as it is kept in a folder."""

    folder: Path
    schedule: str
    steps: int

    @property
    def times(self) -> np.ndarray:
        """Of all its steps."""
        return schedule.get(self.schedule, self.steps)

    @property
    def after(self) -> list[int]:
        """Numbers of steps after which one looks."""
        return stops(self.steps, STOPS)

    @property
    def file(self) -> Path:
        """Of what `followed` gives for one prompt, as `latents`."""
        return self.folder / f"{self.schedule}.npz"

    @property
    def latents(self) -> np.ndarray:
        """Those of the file: (2, len(after), C, T', H', W')."""
        (latents,) = read_npz(self.file, "latents", mend=f"remove {self.file}")
        return latents

    def picture(self, stop: int, is_foretold: bool) -> Path:
        """Of what is there at a stop, or of what that foretells: at the end the same."""
        after = self.after[stop]
        part = "-foretold" if is_foretold and after < self.steps else ""
        return self.folder / f"{self.schedule}-{after:03d}{part}.png"

    def unseen(self) -> list[tuple[Way, int, bool]]:
        """The pictures that are not there: this, the stop, whether it is of what is foretold."""
        asked = itertools.product(range(len(self.after)), (False, True))
        pictures = {self.picture(stop, is_foretold): (self, stop, is_foretold) for stop, is_foretold in asked}
        return [picture for path, picture in pictures.items() if not path.exists()]


def stops(steps: int, count: int) -> list[int]:
    """Numbers of steps after which one looks: evenly spread from none to all, at most `count` of them."""
    return sorted(set(np.linspace(0, steps, count).round().astype(int).tolist()))


def followed(
    x: np.ndarray,
    velocity: Velocity,
    times: np.ndarray,
    after: Sequence[int],
    on_step: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Latents after so many of euler's steps, and the clean ones that these foretell; at the end both are the same.

    Args:
        x: (B, ...).
        after: ascending numbers of steps, the last one of all.

    Returns:
        (2, len(after), B, ...).
    """
    latents, foretold, done = [], [], itertools.count()

    def watched(x: np.ndarray, t: float) -> np.ndarray:
        found = velocity(x, t)
        if next(done) in after:
            latents.append(x)
            foretold.append(x + np.float32(1 - t) * found)
        return found

    end = euler(x, watched, times, on_step)
    return np.stack([np.stack([*latents, end]), np.stack([*foretold, end])])
