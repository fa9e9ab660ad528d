"""Plots: drawn as SVG, so sharp on paper and on any screen, with no state of matplotlib's shared between them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from moviegen import plan
from moviegen import schedule as schedules
from moviegen.config import SIZES
from moviegen.report import markup, published, results
from moviegen.runs import Run

WIDTH = 7.2  # inches; the page is as wide
INK, ACCENT, SECOND, FAINT = "#2b2f36", "#2563a8", "#c2571a", "#9db8d6"
LOSS_COLORS = ((FAINT, ACCENT), ("#b9d8c2", "#2e7d4f"), ("#e8cdb0", "#b0651d"))  # of steps, of their running mean
SCHEDULE_COLORS = {"linear": "#7f8ea3", "linear-quadratic": ACCENT, "linear-quadratic-smooth": SECOND}
STYLE = {
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


def losses(run: Run | None, title: str) -> HTML:
    """Training loss with validation points, above the learning rate."""
    train, validation = results.metrics(run, "train"), results.metrics(run, "validation")
    if train.empty:
        return markup.missing(title)
    with matplotlib.rc_context(STYLE):
        figure, (upper, lower) = _panels(2, height=3.6, heights=(3, 1), share_x=True)
        _draw_losses(upper, train)
        if not validation.empty:
            upper.plot(validation["step"], validation["loss"], "o-", color=SECOND, ms=4, lw=1, label="validation")
            upper.set_ylim(top=max(upper.get_ylim()[1], 1.05 * validation["loss"].max()))
        upper.set(ylabel="loss")
        upper.legend()
        lower.step(train["step"], train["lr"], where="post", color=INK, lw=1.2)
        lower.set(xlabel="step", ylabel="learning rate")
        lower.set_ylim(bottom=0)
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        return drawn(figure, title, [run])


def schedule(steps: int, fine_steps: int = 1000) -> HTML:
    """The linear-quadratic schedules beside the linear one: the times, and how long each step is."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = _panels(2, height=2.7, columns=True)
        for name, color in SCHEDULE_COLORS.items():
            times = schedules.get(name, steps)
            left.plot(times, ".-", ms=3, lw=1, color=color, label=name)
            right.plot(np.arange(1, steps + 1), np.diff(times), ".-", ms=3, lw=1, color=color)
        left.axvspan(0, (steps + 1) // 2 - 1, color=ACCENT, alpha=0.07, lw=0)
        left.set(xlabel="step", ylabel="t  (0 noise, 1 data)", title=f"times of {steps} steps")
        left.legend()
        right.axhline(1 / fine_steps, color=INK, lw=0.8, ls="--", label=f"1/{fine_steps}")
        right.set(xlabel="step", ylabel="length", title="length of each step", yscale="log")
        right.legend()
        return drawn(figure, f"The three schedules of {steps} steps, computed by moviegen/schedule.py")


def schedule_error(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, by number of steps."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error of each schedule")
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _panels(1, height=3.0)
        for name, rows in measured.groupby("schedule", sort=False):
            axes.plot(rows["steps"], rows["error"], "o-", ms=4, lw=1.4, color=SCHEDULE_COLORS[name], label=name)
            axes.fill_between(rows["steps"], rows["least"], rows["most"], color=SCHEDULE_COLORS[name], alpha=0.12, lw=0)
        axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="relative error of the final latent")
        axes.set_xticks(sorted(measured["steps"].unique()), labels=sorted(measured["steps"].unique()))
        axes.minorticks_off()
        axes.legend()
        reference, captions = f"{summary['reference_steps']} equal steps", f"{summary['prompts']} captions"
        return drawn(figure, f"Distance from the latent of {reference}: mean and range of {captions}", [run])


def buckets(run: Run | None, stage: int) -> HTML:
    """How many clips a stage draws from each bucket, in rectangles of the buckets' shapes."""
    counted, title = results.read_csv(run, "buckets.csv"), f"Clips of stage {stage} by bucket"
    if counted is None:
        return markup.missing(title)
    counted = counted[counted["stage"] == stage]
    ratios = {(row.height, row.width): row.width / row.height for row in counted.itertuples()}
    sizes, lengths = sorted(ratios, key=ratios.__getitem__), sorted(counted["frames"].unique())
    across = max(len(sizes), 9)
    side = 0.9 / max(max(ratio, 1 / ratio) for ratio in ratios.values()) ** 0.5
    most = max(1, counted["clips"].max())
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, (axes,) = _panels(1, height=0.7 + 0.88 * WIDTH / across * len(lengths))
        for row in counted.itertuples():
            x, y, stretch = sizes.index((row.height, row.width)), lengths.index(row.frames), row.width / row.height
            width, height = side * stretch**0.5, side / stretch**0.5
            color = (ACCENT, 0.7 * row.clips / most)
            axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fc=color, ec=FAINT, lw=0.8))
            axes.annotate(str(row.clips), (x, y), ha="center", va="center", fontsize=8, color=INK)
        axes.set(xlim=(-0.5, across - 0.5), ylim=(len(lengths) - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(len(sizes)), [f"{height}\nx{width}" for height, width in sizes], fontsize=7)
        axes.set_yticks(range(len(lengths)), ["images" if frames == 1 else f"{frames} frames" for frames in lengths])
        axes.tick_params(length=0)
        return drawn(figure, f"{title}: height x width, and length; a clip is in one bucket of each medium", [run])


def zero(ranks: int = 8) -> HTML:
    """Memory of each published model's state on each card, by ZeRO stage, against what a card has."""
    sizes = list(published.SUPPORT)
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _panels(1, height=2.9)
        for stage, color in enumerate((FAINT, "#6a96c4", ACCENT, "#16406e")):
            memory = [plan.state_bytes(SIZES[size], ranks, stage).total / 1e9 for size in sizes]
            x = np.arange(len(sizes)) + (stage - 1.5) * 0.2
            patches = axes.bar(x, memory, 0.18, color=color, label=f"ZeRO {stage}" if stage else "no ZeRO")
            axes.bar_label(patches, fmt="%.3g", fontsize=7, padding=2, color=INK)
        axes.axhline(published.CARD_MEMORY_GB, color=SECOND, lw=0.9, ls="--", label="one card's memory")
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set(ylabel="GB a card", yscale="log")
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
        axes.legend(loc="upper left", fontsize=8)
        return drawn(figure, f"Weights, gradients and optimizer state on each of {ranks} cards, float32, computed")


def _draw_losses(axes: Axes, train: pd.DataFrame) -> None:
    """The loss of each step, faint, and its running mean; steps of images, of videos and of both apart."""
    media = train["media"].unique() if "media" in train else [None]
    for name, (faint, strong) in zip(media, LOSS_COLORS, strict=False):
        part = train if name is None else train[train["media"] == name]
        label = "training" if len(media) == 1 else f"training, {results.MEDIA[name]}"
        axes.plot(part["step"], part["loss"], color=faint, lw=0.8, alpha=0.8)
        smooth = part["loss"].rolling(max(1, len(part) // 20), min_periods=1).mean()
        axes.plot(part["step"], smooth, color=strong, lw=1.6, label=label)
    axes.set_ylim(min(0, train["loss"].min()), train["loss"].quantile(0.99) * 1.1)  # the first steps may leave the top


def _panels(
    count: int, height: float, heights: Sequence[float] | None = None, columns: bool = False, share_x: bool = False
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    rows, across = (1, count) if columns else (count, 1)
    axes = figure.subplots(rows, across, sharex=share_x, height_ratios=heights, squeeze=False)
    return figure, axes.ravel()


def drawn(figure: Figure, caption: str, runs: Sequence[Run | None] = ()) -> HTML:
    """A finished figure as SVG in a card."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return markup.card(markup.image(f"data:image/svg+xml;base64,{data}", caption, "plot"), caption, runs)
