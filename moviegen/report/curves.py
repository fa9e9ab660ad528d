"""The curves of a training run, of the autoencoder and of the transformer alike."""

from __future__ import annotations

import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from moviegen.report import markup, results
from moviegen.report.plots import ACCENT, FAINT, FOURTH, INK, SECOND, THIRD, drawn, panels, styled
from moviegen.report.wording import after
from moviegen.runs import Run

AT = "loss_at_"  # before the time, in the lines of validations
# What lines of the metrics mark -> how it is called and drawn
MARKS = {"plateau": ("plateau: rate cut", "--"), "resumed": ("resumed", ":")}
COLORS = ((FAINT, ACCENT), ("#a5d6c5", THIRD), ("#e6c3d6", FOURTH))  # of steps, of their running mean


def losses(run: Run | None, title: str) -> HTML:
    """Training loss with validation points, above the gradient's norm and the learning rate, with what happened."""
    train, validation = results.metrics(run, "train"), results.metrics(run, "validation")
    if train.empty:
        return markup.missing(title)
    with styled():
        figure, (upper, middle, lower) = panels(3, height=4.6, heights=(3, 1, 1), share_x=True)
        _draw_losses(upper, train)
        if not validation.empty:
            upper.plot(validation["step"], validation["loss"], "o-", color=SECOND, ms=4, lw=1, label="validation")
            upper.set_ylim(top=max(upper.get_ylim()[1], 1.05 * validation["loss"].max()))
        upper.set(ylabel="loss")
        _mark(upper, run)
        upper.legend()
        _draw_norms(middle, train)
        lower.step(train["step"], train["lr"], where="post", color=INK, lw=1.2)
        lower.set(xlabel="step", ylabel="learning rate")
        lower.set_ylim(bottom=0)
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        return drawn(figure, title, [run])


def by_time(run: Run | None, title: str) -> HTML:
    """The validation loss at each of its fixed times: of the first validation, of one midway and of the last."""
    validation = results.metrics(run, "validation")
    at = {float(name.removeprefix(AT)): name for name in validation if name.startswith(AT)}
    if not at:
        return markup.missing(title)
    chosen = dict.fromkeys((0, (len(validation) - 1) // 2, len(validation) - 1))
    times = sorted(at)
    with styled():
        figure, (axes,) = panels(1, height=2.7)
        for place, color in zip(chosen, (FOURTH, SECOND, ACCENT)[-len(chosen) :], strict=True):
            line = validation.iloc[place]
            values = [line[at[t]] for t in times]
            axes.plot(times, values, "o-", ms=3.5, lw=1.4, color=color, label=after(line["step"]))
        axes.set(xlabel="t  (0 noise, 1 data)", ylabel="validation loss", xlim=(0, 1))
        axes.legend()
        return drawn(figure, title, [run])


def _draw_norms(axes: Axes, train: pd.DataFrame) -> None:
    """The gradient's norm at each step, before it is clipped."""
    if "grad_norm" in train:
        axes.plot(train["step"], train["grad_norm"], color=INK, lw=0.8)
        axes.set_ylim(bottom=0)
    axes.set(ylabel="gradient\nnorm")


def _mark(axes: Axes, run: Run | None) -> None:
    """Where a plateau cut the learning rate, and where training went on from a checkpoint."""
    for kind, (label, style) in MARKS.items():
        for number, step in enumerate(results.metrics(run, kind).get("step", ())):
            axes.axvline(step, color=INK, lw=1, ls=style, label="" if number else label)


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
