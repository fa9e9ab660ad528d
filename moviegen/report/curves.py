"""The curves of a training run, of the autoencoder and of the transformer alike."""

from __future__ import annotations

import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from moviegen.report import markup, results
from moviegen.report.plots import ACCENT, FAINT, FOURTH, INK, SECOND, THIRD, drawn, panels, styled
from moviegen.runs import Run

COLORS = ((FAINT, ACCENT), ("#a5d6c5", THIRD), ("#e6c3d6", FOURTH))  # of steps, of their running mean


def losses(run: Run | None, title: str) -> HTML:
    """Training loss with validation points, above the learning rate."""
    train, validation = results.metrics(run, "train"), results.metrics(run, "validation")
    if train.empty:
        return markup.missing(title)
    with styled():
        figure, (upper, lower) = panels(2, height=3.6, heights=(3, 1), share_x=True)
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


def _draw_losses(axes: Axes, train: pd.DataFrame) -> None:
    """The loss of each step, faint, and its running mean; steps of images, of videos and of both apart."""
    media = train["media"].unique() if "media" in train else [None]
    for name, (faint, strong) in zip(media, COLORS, strict=False):
        part = train if name is None else train[train["media"] == name]
        label = "training" if len(media) == 1 else f"training, {results.MEDIA[name]}"
        axes.plot(part["step"], part["loss"], color=faint, lw=0.8, alpha=0.8)
        smooth = part["loss"].rolling(max(1, len(part) // 20), min_periods=1).mean()
        axes.plot(part["step"], smooth, color=strong, lw=1.6, label=label)
    axes.set_ylim(min(0, train["loss"].min()), train["loss"].quantile(0.99) * 1.1)  # the first steps may leave the top
