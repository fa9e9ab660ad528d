"""Of the cost page: published seconds a step, and how far the plan is from them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML

from moviegen import plan
from moviegen.plan.published import TIMINGS
from moviegen.plan.validate import Row, Validation, published_cases, split_errors
from moviegen.report import markup
from moviegen.report.planned import published_card
from moviegen.report.plots import ACCENT, FAINT, INK, SECOND, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import listed, percent, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.1  # of the diagonal in the figure: the largest error that is aimed at
COLORS = (SECOND, ACCENT)


def foretold() -> list[Validation]:
    """The published rows of each version of the software, held against what the plan says of them."""
    return plan.validate(plan.measured(TIMINGS), published_card())


def published_rows(validations: Sequence[Validation]) -> HTML:
    """Row by row: published, foretold by the half that was fitted, by all other rows, and how far off."""
    rows = [_row(validation, row) for validation in validations for row in validation.rows]
    return table(rows, "Seconds a micro-batch: published, and foretold by moviegen/plan/time.py")


def how_far(validations: Sequence[Validation]) -> HTML:
    """The numbers that were fitted to each version of the software, and the errors they leave."""
    cases = published_cases(plan.measured(TIMINGS))
    columns = {one.software: _fit(one, split_errors(cases[one.software], published_card())) for one in validations}
    names = next(iter(columns.values()))
    rows = [{"": name} | {software: column[name] for software, column in columns.items()} for name in names]
    return table(rows, "What was fitted to the published rows, and how far it is off; errors: mean, largest")


def scatter(validations: Sequence[Validation]) -> HTML:
    """Published against foretold seconds, each by the fit to all other rows; both axes logarithmic."""
    with styled():
        figure, (axes,) = panels(1, height=4.2)
        ends = np.array([0.2, 120.0])
        axes.plot(ends, ends, color=INK, lw=0.8)
        axes.fill_between(ends, (1 - BAND) * ends, (1 + BAND) * ends, color=FAINT, alpha=0.35, lw=0)
        for color, one in zip(COLORS, validations, strict=True):
            seconds = [(row.measured.seconds, row.by_others) for row in one.possible]
            axes.plot(*zip(*seconds, strict=True), "o", color=color, ms=5, label=one.software)
            odd = [(row.measured.seconds, row.by_others) for row in one.rows if row.impossible]
            if odd:
                label = f"{one.software}, not possible as written"
                axes.plot(*zip(*odd, strict=True), "x", color=color, ms=6, label=label)
            for row in one.rows:
                _label(axes, row, color, is_above=color == COLORS[0] or bool(row.impossible))
        axes.set(xscale="log", yscale="log", xlabel="published, s a micro-batch", ylabel="foretold, s")
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(loc="upper left", fontsize=8)
        caption = f"Published and foretold seconds; within the band the error is at most {percent(BAND)}"
        return drawn(figure, caption)


def impossible_rows(validations: Sequence[Validation]) -> HTML:
    """Which rows cannot be what they are read as, and why."""
    odd = [
        f"{row.measured.size}, stage {row.measured.stage}, with {one.software} ({row.impossible})"
        for one in validations
        for row in one.rows
        if row.impossible
    ]
    if not odd:
        return markup.note("All rows are possible as they are read.")
    return markup.note(
        f"Not possible as micro-batches of the longest videos: {listed(odd)}. They count in no fit and in no error; as "
        "the recipe's mixture of images and videos they would take what the last column says."
    )


def _label(axes: Axes, row: Row, color: str, is_above: bool) -> None:
    """Names a point; some names stand higher, as their points lie beside others."""
    at = (row.measured.seconds, row.by_others)
    above = 13 if row.measured.size == "5B" or row.measured.stage == 1 else 5
    place = {"xytext": (-5, above), "ha": "right"} if is_above else {"xytext": (5, -9), "ha": "left"}
    text = f"{row.measured.size} {row.measured.stage}"
    axes.annotate(text, at, textcoords="offset points", fontsize=7, color=color, **place)


def _row(validation: Validation, row: Row) -> dict[str, Any]:
    """A published row's columns."""
    return {
        "software": validation.software,
        "model": row.measured.size,
        "stage": row.measured.stage,
        "published": shown(row.measured.seconds),
        "by half of the rows": shown(row.by_half),
        "in that half": "yes" if row.fitted else "no",
        "by all other rows": shown(row.by_others),
        "error": "not possible" if row.impossible else f"{100 * row.error(row.by_others):+.1f} %",
        "as a mixture": shown(row.mixed),
    }


def _fit(one: Validation, halves: Sequence[float]) -> dict[str, object]:
    """A version's column; `halves`: the mean error on the rest of each way to fit half of the rows."""
    return {
        "rows that count": len(one.possible),
        "attention's share of the peak": shown(one.speed.attention),
        "overhead of a micro-batch": f"{shown(one.speed.overhead)} s",
        "exchange hidden": percent(one.speed.hidden),
        "error of the half that was not fitted": _errors(one.held_out),
        "mean error of the rest, whichever half is fitted: median, worst": (
            f"{percent(statistics.median(halves))}, {percent(max(halves))} of {len(halves)} ways"
        ),
        "error of each row, by the fit to all others": _errors(one.left_out),
        "error of the rows that were fitted": _errors(one.fitted),
        "measured / foretold": f"{shown(one.speed.low)} to {shown(one.speed.high)}",
        "chance that one more such row lies there": percent(one.coverage),
    }


def _errors(errors: tuple[float, float]) -> str:
    return f"{percent(errors[0])}, {percent(errors[1])}"
