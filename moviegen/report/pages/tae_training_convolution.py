"""Of the autoencoder's page: a Conv2.5D drawn, and the kernel that it starts with."""

from __future__ import annotations

import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from moviegen.report.diagrams import EDGE, GREY, LINE, PALE, WARM, arrow, sheet
from moviegen.report.plots import ACCENT, INK, SECOND, THIRD, drawn, styled

FRAMES, CHANNELS = 5, 6  # that are drawn
FIRST, STEP, SIZE = 0.235, 0.078, (0.056, 0.125)  # where the first frame is, from one to the next, and how large
FRAME, FEATURE, OUTPUT = 0.03, 0.39, 0.75
TAPS = {"t \N{MINUS SIGN} 1": False, "t": True, "t + 1": False}  # which of them is the identity at the start
SEEN = (
    "Left: five frames of a video; a 2-D convolution makes features of each by itself, and a 1-D convolution makes "
    "each output frame of three neighbouring ones. The first output takes a dashed copy of the first features before "
    "them. Right: the three taps of the temporal kernel as tables of channels by channels. The first and the last hold "
    "zeros only, the middle one has ones on its diagonal."
)


def convolution() -> HTML:
    """A spatial convolution, a temporal one after it, and the taps of the latter at the start."""
    with styled():
        figure, axes = sheet(height=3.5)
        _frames(axes)
        _kernel(axes)
        return drawn(
            figure,
            "A Conv2.5D: a 2-D convolution of each frame, then a 1-D one over frames, which starts as the identity",
            alt=SEEN,
        )


def _frames(axes: Axes) -> None:
    """Rows of frames with what leads from one to the next; of the last step two outputs are followed."""
    for row, name, color in ((FRAME, "frames", GREY), (FEATURE, "features", PALE), (OUTPUT, "output", WARM)):
        axes.text(0.12, row + SIZE[1] / 2, name, fontsize=8, ha="right", va="center", color=INK)
        for frame in range(FRAMES):
            followed = {0: THIRD, 3: SECOND}.get(frame, EDGE) if row == OUTPUT else EDGE
            _rectangle(axes, _left(frame), row, SIZE, color, followed)
    for frame in (-1, FRAMES):
        _rectangle(axes, _left(frame), FEATURE, SIZE, "none", LINE, "--")
        axes.text(_middle(frame), FEATURE + SIZE[1] / 2, "copy", fontsize=6.5, ha="center", va="center", color=INK)
    for frame in range(FRAMES):
        arrow(axes, (_middle(frame), FRAME + SIZE[1]), (_middle(frame), FEATURE))
    for output in (0, 3):
        for tap in (-1, 0, 1):
            arrow(axes, (_middle(output + tap), FEATURE + SIZE[1]), (_middle(output) + 0.016 * tap, OUTPUT))
    for row, words in ((FRAME, "2-D convolution,\neach by itself"), (FEATURE, "1-D convolution\nover time")):
        axes.text(0.12, row + (FEATURE - FRAME + SIZE[1]) / 2, words, fontsize=7, ha="right", va="center", color=INK)


def _kernel(axes: Axes) -> None:
    """The taps as tables of output by input channels."""
    left, side, y = 0.735, (0.08, 0.175), 0.53
    cell = (side[0] / CHANNELS, side[1] / CHANNELS)
    axes.text(left, 0.86, "the temporal kernel at the start", fontsize=8.5, weight="bold", color=INK)
    for place, (tap, is_identity) in enumerate(TAPS.items()):
        x = left + place * (side[0] + 0.012)
        for row, column in np.ndindex(CHANNELS, CHANNELS):
            color = ACCENT if is_identity and row == column else "none"
            _rectangle(axes, x + column * cell[0], y + (CHANNELS - 1 - row) * cell[1], cell, color, LINE, width=0.4)
        words = "identity" if is_identity else "zeros"
        axes.text(x + side[0] / 2, y + side[1] + 0.02, tap, fontsize=8, ha="center", va="bottom", color=INK)
        axes.text(x + side[0] / 2, y - 0.02, words, fontsize=8, ha="center", va="top", color=INK)
    words = (
        "A tap has a row for each channel\nout and a column for each one in:\nfilled is 1, empty is 0. At the start\n"
        "every frame comes out as it went in;\nthe neighbours' weights are learnt."
    )
    axes.text(left, y - 0.13, words, fontsize=7.5, va="top", color=INK, linespacing=1.4)


def _left(frame: int) -> float:
    return FIRST + STEP * frame


def _middle(frame: int) -> float:
    return _left(frame) + SIZE[0] / 2


def _rectangle(
    axes: Axes,
    x: float,
    y: float,
    size: tuple[float, float],
    color: str,
    edge: str,
    style: str = "-",
    width: float = 1.1,
) -> None:
    axes.add_patch(Rectangle((x, y), *size, facecolor=color, edgecolor=edge, linestyle=style, linewidth=width))
