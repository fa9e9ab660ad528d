"""What moves in an open notebook while a program trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from IPython.display import HTML, display

from moviegen.report import plots

SECONDS = 3.0  # between two drawings
MOST = 400  # points that are drawn; of more, every so many-th


class LiveCurve:
    """The loss of a training, drawn again in its place as `metrics.jsonl` grows.

    Args:
        name: what trains.
    """

    def __init__(self, name: str) -> None:
        self._name, self._drawn = name, time.monotonic()
        self._losses: dict[int, float] = {}
        self._place = display(HTML(""), display_id=True)

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Takes a line of the metrics; a job's next run begins another curve."""
        if line.get("kind") == "state":
            self._losses.clear()
        if line.get("kind") != "train" or "loss" not in line:
            return
        self._losses[line["step"]] = line["loss"]
        if len(self._losses) > 1 and time.monotonic() - self._drawn >= SECONDS:
            self._draw(line.get("steps"))
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Removes the curve: the page draws the whole one."""
        if self._place is not None:
            self._place.update(HTML(""))

    def _draw(self, steps: int | None) -> None:
        if self._place is None:
            return
        every = -(-len(self._losses) // MOST)
        points = list(self._losses.items())[::every]
        with plots.styled():
            figure, (axes,) = plots.panels(1, 1.9)
            axes.plot(*zip(*points, strict=True), color=plots.ACCENT, linewidth=1)
            axes.set(xlabel="step", ylabel="loss", xlim=(0, steps))
            self._place.update(plots.drawn(figure, f"{self._name}, as it trains"))
