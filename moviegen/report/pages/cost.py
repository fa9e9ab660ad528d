"""The cost page: seconds a step, published, foretold and here; memory, arithmetic and scaling by counting."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen import plan
from moviegen.config import Params, load
from moviegen.plan.published import TIMINGS
from moviegen.report import provenance, results
from moviegen.report.pages.cost_here import steps_exchanged, steps_memory, this_machine
from moviegen.report.pages.cost_memory import memory_bars, memory_here, memory_measured, memory_rows, published_needs
from moviegen.report.pages.cost_published import foretold, how_far, impossible_rows, published_rows, scatter
from moviegen.report.pages.cost_questions import questions
from moviegen.report.pages.cost_roofline import roofline, roofline_rows, traffics
from moviegen.report.pages.cost_scaling import (
    scaling,
    scaling_rows,
    strong_curves,
    token_sharing,
    token_sharing_verdict,
    weak_curves,
    weak_rows,
)
from moviegen.report.pages.cost_sliders import sliders
from moviegen.report.planned import newest, published_card, seconds, written
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import count, longest_clip, shown
from moviegen.runs import Run

__all__ = [
    "costs", "foretold", "how_far", "impossible_rows", "memory_bars", "memory_here", "memory_measured", "memory_rows",
    "published_needs", "published_rows", "questions", "roofline", "roofline_rows", "scaling", "scaling_rows", "scatter",
    "sliders", "steps_exchanged", "steps_memory", "strong_curves", "this_machine", "timings", "token_sharing",
    "token_sharing_verdict", "traffics", "weak_curves", "weak_rows",
]  # fmt: skip


def timings(params: Params, stages: StageRuns) -> HTML:
    """Published seconds beside this machine's: of a micro-batch, and of an update of the recipe's micro-batches."""
    recipes = {size: load(size).recipes for size in dict.fromkeys(timing.size for timing in TIMINGS)}
    rows: list[dict[str, Any]] = []
    for timing in TIMINGS:
        many = recipes[timing.size][timing.stage].train.settings.gradient_accumulation_steps
        rows.append(
            {
                "model, stage": f"{timing.size}, {timing.stage}",
                "images + videos": timing.batch,
                "frames and pixels": timing.resolution,
                "recompute, shards": f"{timing.recompute}, {timing.shards}",
                "2.3.1": shown(timing.mindspore_2_3_1),
                "2.7.0": shown(timing.mindspore_2_7_0),
                "here": "-",
                "micro-batches": many,
                "2.7.0, update": written(many * timing.mindspore_2_7_0),
                "here, update": "-",
            }
        )
    for stage, run in stages.items():
        recipe, update = params.recipes[stage], results.seconds_per_step(run)
        batch, many = recipe.dataloader.batch_size, recipe.train.settings.gradient_accumulation_steps
        recompute = "on" if recipe.model.recompute_every_nth_block else "off"
        rows.append(
            {
                "model, stage": f"{recipe.model.size}, {stage}",
                "images + videos": f"{batch.image_batch_size} + {batch.video_batch_size}",
                "frames and pixels": longest_clip(recipe.dataset),
                "recompute, shards": f"{recompute}, {recipe.train.sequence_parallel.shards}",
                "2.3.1": "-",
                "2.7.0": "-",
                "here": shown(update / many) if update else provenance.why_absent(params, f"stage{stage}", run),
                "micro-batches": many,
                "2.7.0, update": "-",
                "here, update": shown(update),
            }
        )
    caption = (
        "Seconds a micro-batch, published (8 cards, MindSpore 2.3.1 and 2.7.0) and here; and an update, of as many "
        "micro-batches as the recipe has"
    )
    return table(rows, caption, stages.values())


def costs(params: Params, stages: StageRuns) -> HTML:
    """Counted cost of each stage's update, on videos where it has them; what was measured here, or is foretold."""
    rows = []
    for stage, run in stages.items():
        cost, samples = plan.stage_cost(params, stage), plan.stage_work(params, stage).samples_an_update
        measured = results.seconds_per_step(run, "video" if params.recipes[stage].dataset.longest > 1 else "image")
        update = shown(measured) if measured else _foretold(params, stage, 1, run)
        sample = shown(measured / samples) if measured else _foretold(params, stage, samples, run)
        rows.append(
            {
                "stage": stage,
                "parameters": count(cost.parameters + cost.positions),
                "tokens a sample": f"{cost.tokens:,}",
                "samples an update": f"{samples:g}",
                "arithmetic an update": f"{plan.si(cost.flops)}FLOP",
                "state a rank": f"{plan.si(cost.state.total)}B",
                "s an update": update,
                "s a sample": sample,
                "rate reached": f"{plan.si(cost.flops / measured)}FLOP/s"
                if measured
                else provenance.why_absent(params, f"stage{stage}", run),
            }
        )
    return table(rows, f"Counted cost of the {params.scale} recipe, and speed here", stages.values())


def _foretold(params: Params, stage: int, samples: float, run: Run | None) -> str:
    """What stands in the place of a measurement: of an update of cards what the plan says, divided by so many."""
    absent = provenance.why_absent(params, f"stage{stage}", run)
    if params.launch.device == "CPU":
        return absent
    update = plan.update_seconds(plan.stage_work(params, stage), published_card(), newest().speed)
    return f"{absent}; foretold {seconds(update / samples)}"
