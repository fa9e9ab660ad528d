"""What plots share. They are SVG, so sharp on paper and on any screen, and share no state of matplotlib's."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure

from moviegen.report import markup
from moviegen.runs import Run

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

WIDTH = 7.2  # inches; the page is as wide
INK, FAINT = "#2b2f36", "#9db8d6"
# Of Okabe and Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color) those that show on either page
ACCENT, SECOND, THIRD, FOURTH = PALETTE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
STYLE: dict[RcKeyType, object] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "moviegen",  # the same figure gives the same bytes
}


def styled(changes: Mapping[RcKeyType, object] | None = None) -> AbstractContextManager[None]:
    """Inside it figures look like the report's, whatever a reader's matplotlibrc says; `changes`: one figure's own."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, **(changes or {})})


def panels(
    count: int, height: float, heights: Sequence[float] | None = None, columns: bool = False, share_x: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure as wide as the page with so many axes, below or, as `columns`, beside each other."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    rows, across = (1, count) if columns else (count, 1)
    axes = figure.subplots(rows, across, sharex=share_x, height_ratios=heights, squeeze=False)
    return figure, axes.ravel()


def drawn(figure: Figure, caption: str, runs: Sequence[Run | None] = (), alt: str = "") -> HTML:
    """A finished figure as SVG in a card; `alt`: what is seen, where the caption does not say it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return markup.card(markup.image(f"data:image/svg+xml;base64,{data}", alt or caption, "plot"), caption, runs)
