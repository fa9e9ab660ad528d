"""Of the cost page: arithmetic beside the bytes it needs, under the roof of a card's peak and its bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from IPython.display import HTML

from moviegen import plan
from moviegen.config import load
from moviegen.plan.published import TIMINGS
from moviegen.plan.roofline import KINDS, Traffic, attainable, memory_bandwidth, memory_traffic, ridge
from moviegen.report.planned import published_card, written
from moviegen.report.plots import ACCENT, INK, SECOND, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import percent, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DTYPE = "bfloat16"  # of the published recipes' arithmetic
MARKERS = {1: "o", 2: "s", 3: "^"}  # of stages
COLORS = {"1B": "#9aa3ad", "5B": ACCENT, "30B": SECOND}
Traffics = dict[tuple[str, int], dict[str, Traffic]]  # of each size and stage, by kind


def traffics() -> Traffics:
    """A card's micro-batch of the longest videos, of each stage of each published size."""
    scales = {size: load(size) for size in COLORS}
    return {(size, stage): memory_traffic(params, stage) for size, params in scales.items() for stage in MARKERS}


def roofline(found: Traffics) -> HTML:
    """The kinds of each stage on the roof, and whole stages at their published speed below it."""
    card, ends = published_card(), np.array([0.3, 60_000])
    with styled():
        figure, axes = panels(2, height=3.5, columns=True)
        for one, title in zip(axes, ("kinds of work, at best", "whole stages, as published"), strict=True):
            roof = [attainable(intensity, card, DTYPE) / 1e12 for intensity in (ends[0], ridge(card, DTYPE), ends[1])]
            one.plot([ends[0], ridge(card, DTYPE), ends[1]], roof, color=INK, lw=1)
            one.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="TFLOP/s", title=title)
            one.set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
            one.yaxis.set_major_formatter("{x:g}")
        for (size, stage), kinds in found.items():
            looks = {"color": COLORS[size], "marker": MARKERS[stage], "ms": 4.5, "ls": "", "alpha": 0.7}
            for kind in kinds.values():
                axes[0].plot(kind.intensity, attainable(kind.intensity, card, DTYPE) / 1e12, **looks)
            whole, seconds = _whole(kinds), _published(size, stage)
            axes[1].plot(whole.intensity, whole.flops / seconds / 1e12, label=f"{size}, stage {stage}", **looks)
        _name_kinds(axes[0], found)
        axes[1].set(xlim=(20, 20_000), ylim=(10, 600))
        figure.legend(loc="outside upper center", ncols=3, fontsize=7.5)
        peak, bandwidth = f"{plan.si(card.flops(DTYPE))}FLOP/s", f"{plan.si(memory_bandwidth(card))}B/s"
        return drawn(
            figure,
            f"Roofline of {card.name}: {peak} in {DTYPE}, memory {bandwidth}; what lies above the roof cannot be",
        )


def roofline_rows(found: Traffics) -> HTML:
    """Each kind's part of a stage: arithmetic, bytes, what bounds it, and the least that it takes."""
    card = published_card()
    rows = []
    for (size, stage), kinds in found.items():
        least = sum(kind.seconds(card, DTYPE) for kind in kinds.values())
        row: dict[str, object] = {"model": size, "stage": stage}
        for name, kind in kinds.items():
            bound = "peak" if kind.intensity >= ridge(card, DTYPE) else "memory"
            row[f"{name}: FLOP/byte, bound, share"] = (
                f"{written(kind.intensity)}, {bound}, {percent(kind.seconds(card, DTYPE) / least)}"
            )
        rows.append(row | {"least s a micro-batch": shown(least), "published": shown(_published(size, stage))})
    title = f"A card's micro-batch by kind on {card.name}: what bounds it, and its share of the least time"
    return table(rows, title)


def _whole(kinds: dict[str, Traffic]) -> Traffic:
    return sum((kinds[kind] for kind in KINDS[1:]), kinds[KINDS[0]])


def _published(size: str, stage: int) -> float:
    """Seconds a micro-batch with the newest software."""
    (timing,) = (timing for timing in TIMINGS if (timing.size, timing.stage) == (size, stage))
    return timing.mindspore_2_7_0


def _name_kinds(axes: Axes, found: Traffics) -> None:
    """Names each kind beside its points."""
    card = published_card()
    for kind, place in zip(KINDS, ((0, 8), (0, -14), (10, 0), (8, -3)), strict=True):
        middle = float(np.exp(np.mean([np.log(kinds[kind].intensity) for kinds in found.values()])))
        align = "left" if place[0] else "center"
        at = (middle, attainable(middle, card, DTYPE) / 1e12)
        axes.annotate(kind, at, place, textcoords="offset points", fontsize=7.5, color=INK, ha=align, va="center")
