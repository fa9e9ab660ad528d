"""The cost page: seconds a step, published and here, and the cost of a step by counting."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen import plan
from moviegen.config import Params
from moviegen.report import markup, published, results
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import count, longest_clip, shown


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
        for timing in published.TIMINGS
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
