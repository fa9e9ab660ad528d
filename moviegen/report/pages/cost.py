"""The cost page: seconds a step, published, foretold and here, and the cost of a step by counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import HTML

from moviegen import plan
from moviegen.config import Params, load
from moviegen.plan.published import TIMINGS
from moviegen.plan.validate import Row, Validation
from moviegen.report import markup, results
from moviegen.report.plots import ACCENT, FAINT, INK, SECOND, drawn, panels, styled
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import count, listed, longest_clip, percent, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCALED, SCALED_STAGE = "30B", 3  # what is scaled on paper, whatever the report's own scale
VIDEOS = 64  # of an update there
SHARDS = (8, 16, 24, 48)  # as many cards as can share a video's tokens by their 48 heads, whole hosts
MOST_CARDS = 4096
BAND = 0.1  # of the diagonal in the figure: the largest error that is aimed at
COLORS = (SECOND, ACCENT)


def timings(params: Params, stages: StageRuns) -> HTML:
    """Published seconds a step beside this machine's."""
    rows: list[dict[str, Any]] = [
        {
            "model": timing.size,
            "stage": timing.stage,
            "batch, images + videos": timing.batch,
            "frames and pixels": timing.resolution,
            "recompute": timing.recompute,
            "shards": timing.shards,
            "MindSpore 2.3.1": timing.mindspore_2_3_1,
            "MindSpore 2.7.0": timing.mindspore_2_7_0,
            "here": "-",
        }
        for timing in TIMINGS
    ]
    for stage, run in stages.items():
        recipe = params.recipes[stage]
        batch = recipe.dataloader.batch_size
        rows.append(
            {
                "model": recipe.model.size,
                "stage": stage,
                "batch, images + videos": f"{batch.image_batch_size} + {batch.video_batch_size}",
                "frames and pixels": longest_clip(recipe.dataset),
                "recompute": "on" if recipe.model.recompute_every_nth_block else "off",
                "shards": recipe.train.sequence_parallel.shards,
                "MindSpore 2.3.1": "-",
                "MindSpore 2.7.0": "-",
                "here": shown(results.seconds_per_step(run)) if run else markup.NOT_RUN,
            }
        )
    return table(rows, "Seconds a training step: published (8 cards), and here", stages.values())


def costs(params: Params, stages: StageRuns) -> HTML:
    """Counted cost of each stage's step, on videos where it has them, and the arithmetic rate this machine reached."""
    rows = []
    for stage, run in stages.items():
        cost = plan.stage_cost(params, stage)
        seconds = results.seconds_per_step(run, "video" if params.recipes[stage].dataset.longest > 1 else "image")
        rows.append(
            {
                "stage": stage,
                "parameters": count(cost.parameters + cost.positions),
                "tokens a sample": f"{cost.tokens:,}",
                "arithmetic a step": f"{plan.si(cost.flops)}FLOP",
                "state a rank": f"{plan.si(cost.state.total)}B",
                "s/step": shown(seconds) if seconds else markup.NOT_RUN,
                "rate reached": f"{plan.si(cost.flops / seconds)}FLOP/s" if seconds else markup.NOT_RUN,
            }
        )
    return table(rows, f"Counted cost of the {params.scale} recipe, and speed here", stages.values())


def foretold() -> list[Validation]:
    """The published rows of each version of the software, held against what the plan says of them."""
    return plan.validate(plan.measured(TIMINGS), plan.find_card(plan.PUBLISHED_CARD))


def published_rows(validations: Sequence[Validation]) -> HTML:
    """Row by row: published, foretold by the half that was fitted, by all other rows, and how far off."""
    rows = [_row(validation, row) for validation in validations for row in validation.rows]
    return table(rows, "Seconds a micro-batch: published, and foretold by moviegen/plan/time.py")


def how_far(validations: Sequence[Validation]) -> HTML:
    """The numbers that were fitted to each version of the software, and the errors they leave."""
    rows = [
        {
            "software": one.software,
            "rows": len(one.possible),
            "attention's share of the peak": shown(one.speed.attention),
            "overhead of a micro-batch": f"{shown(one.speed.overhead)} s",
            "exchange hidden": percent(one.speed.hidden),
            "error of the other half, mean and largest": _errors(one.held_out),
            "of each row, by all others": _errors(one.left_out),
            "of the rows that were fitted": _errors(one.fitted),
            "measured / foretold": f"{shown(one.speed.low)} to {shown(one.speed.high)}",
        }
        for one in validations
    ]
    return table(rows, "What was fitted to the published rows, and how far it is off")


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


def scaling(validations: Sequence[Validation]) -> list[list[plan.Point]]:
    """Strong scaling of the largest recipe, on ever more cards of the published kind: points of each of SHARDS.

    Args:
        validations: of each version of the software; the last is taken.
    """
    params, card, speed = load(SCALED), plan.find_card(plan.PUBLISHED_CARD), validations[-1].speed
    counts = sorted({shards * 2**power for shards in SHARDS for power in range(10)})
    counts = [count for count in counts if count <= MOST_CARDS]
    return [plan.strong_scaling(params, SCALED_STAGE, card, speed, VIDEOS, shards, counts) for shards in SHARDS]


def scaling_curves(lines: Sequence[Sequence[plan.Point]]) -> HTML:
    """Seconds of an update, and how much longer exchanging takes than computing, against cards."""
    with styled():
        figure, (update, ratio) = panels(2, height=3.4, columns=True)
        for points, color in zip(lines, (FAINT, "#6a96c4", ACCENT, "#16406e"), strict=True):
            cards, name = [point.cards for point in points], f"{points[0].shards} share a video"
            update.plot(cards, [point.seconds for point in points], "o-", color=color, ms=3, lw=1.2, label=name)
            ratio.plot(cards, [point.exchanged / point.computed for point in points], "o-", color=color, ms=3, lw=1.2)
        ratio.axhline(1, color=SECOND, lw=0.9, ls="--")
        update.set(xscale="log", yscale="log", xlabel="cards", title=f"s an update of {VIDEOS:,} videos")
        ratio.set(xscale="log", ylim=(0, None), xlabel="cards", title="exchanging / computing")
        for axis in (update.xaxis, update.yaxis, ratio.xaxis):
            axis.set_major_formatter("{x:g}")
        update.legend(loc="lower left", fontsize=7)
        return drawn(
            figure, f"{SCALED}, stage {SCALED_STAGE}, on more cards, on paper; above the dashed line cards wait"
        )


def scaling_rows(lines: Sequence[Sequence[plan.Point]]) -> HTML:
    """For each number of cards the number of shards with which an update is fastest."""
    fastest: dict[int, plan.Point] = {}
    for point in (point for points in lines for point in points):
        if point.cards not in fastest or point.seconds < fastest[point.cards].seconds:
            fastest[point.cards] = point
    rows = [
        {
            "cards": f"{point.cards:,}",
            "share a video": point.shards,
            "micro-batches": point.micro_batches,
            "s an update": shown(point.seconds),
            "computing": shown(point.computed),
            "exchanging": shown(point.exchanged),
            "videos an hour and card": shown(3600 * VIDEOS / point.seconds / point.cards),
            "state a card": f"{plan.si(point.state_bytes)}B",
        }
        for _, point in sorted(fastest.items())
    ]
    return table(rows, f"{SCALED}, stage {SCALED_STAGE}: {VIDEOS:,} videos an update, on paper")


def _label(axes: Axes, row: Row, color: str, is_above: bool) -> None:
    """Names a point; 5B's names stand higher, as one of its points lies on one of 30B's."""
    at, above = (row.measured.seconds, row.by_others), 13 if row.measured.size == "5B" else 5
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


def _errors(errors: tuple[float, float]) -> str:
    return f"{percent(errors[0])}, {percent(errors[1])}"
