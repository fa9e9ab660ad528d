"""What the drawings of the two networks share: a sheet, and boxes and arrows on it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from moviegen.report.plots import INK, WIDTH

PALE, WARM, GREY = "#e4edf7", "#fbeadf", "#f1f2f4"
EDGE, LINE = "#b9c0c9", "#6c747e"  # around boxes, and between them


def sheet(height: float) -> tuple[Figure, Axes]:
    """An empty drawing; x runs from 0 to 1, y to 0.95."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 0.95))
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, x: float, y: float, width: float, text: str, color: str, height: float = 0.3, size: float = 7.5
) -> None:
    """A box centred on `y` with its left edge at `x`."""
    axes.add_patch(rounded(x, y - height / 2, width, height, color))
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=size, color=INK, linespacing=1.35)


def rounded(x: float, y: float, width: float, height: float, color: str, edge: str = EDGE) -> FancyBboxPatch:
    """A rectangle with round corners, from its lower left one."""
    shape = "round,pad=0,rounding_size=0.012"
    return FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=color, edgecolor=edge, linewidth=0.9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": LINE, "lw": 0.9, "shrinkA": 1, "shrinkB": 1}
    )
