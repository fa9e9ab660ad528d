"""The report's tables: published numbers beside measured and counted ones."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen import plan
from moviegen.config import SIZES, Params
from moviegen.data.ucf101 import describe
from moviegen.report import markup, published, results
from moviegen.report.parallel_tables import speed, state, traffic
from moviegen.report.results import percent, shown
from moviegen.runs import Run

# What notebooks call; those of the parallelism page are in a file of their own.
__all__ = ["costs", "data", "quarantine", "recipe", "retrieval", "schedule_error", "sizes", "speed", "state", "summary"]
__all__ += ["support", "timings", "traffic"]

StageRuns = dict[int, Run | None]
STAGE_TITLES = {1: "1: images, 256 px", 2: "2: images and videos, 256 px", 3: "3: images and videos, 768 px"}


def support(params: Params, stages: StageRuns) -> HTML:
    """What the original report supports, and what was run for this page."""
    rows = [
        {"model": size, **dict(zip(STAGE_TITLES.values(), support, strict=True)), "source": "original report"}
        for size, support in published.SUPPORT.items()
    ]
    here = [f"trained here at {_view(params, stage)}" if run else markup.NOT_RUN for stage, run in stages.items()]
    measured = dict(zip(STAGE_TITLES.values(), here, strict=True))
    rows.append({"model": params.recipes[1].model.size, **measured, "source": "this report"})
    return markup.table(rows, "Support matrix by model and stage", stages.values())


def summary(params: Params, evaluation: Run | None, stages: StageRuns, sample: Run | None) -> HTML:
    """The results on one page."""
    scores = results.tae_scores(evaluation, "ucf101", "tae-mixkit") or {}
    speed = results.read_json(sample, "summary.json") or {}
    rows = [
        {"result": "TAE reconstruction, PSNR (dB)", "value": shown(scores.get("psnr"), 4)},
        {"result": "TAE reconstruction, SSIM", "value": shown(scores.get("ssim"))},
    ]
    for stage, run in stages.items():
        loss = results.last(run, "validation", "loss")
        rows.append({"result": f"validation loss at the end of stage {stage}", "value": shown(loss, 4)})
    rows.append({"result": "sampling (s/clip)", "value": shown(speed.get("seconds_per_clip"))})
    for row in rows:
        row["value"] = markup.NOT_RUN if row["value"] == "-" else row["value"]
    return markup.table(rows, f"Results of the {params.scale} recipe", [evaluation, *stages.values(), sample])


def data(run: Run | None) -> HTML:
    """How many clips there are, and how many could not be read."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Clips")
    ucf101, mixkit = summary["ucf101"], summary["mixkit"]
    classes = f"{ucf101['classes']} classes"
    rows = [
        {"data set": "UCF-101", "training": ucf101["train"], "held out": f"{ucf101['test']} (test)", "note": classes},
        {"data set": "mixkit", "training": mixkit["train"], "held out": f"{mixkit['val']} (validation)", "note": ""},
        {"data set": "set aside", "training": "-", "held out": "-", "note": f"{summary['quarantined']} unreadable"},
    ]
    if summary["official"]:
        note = describe(summary["official"])
        rows.insert(1, {"data set": "UCF-101 as published", "training": "-", "held out": "-", "note": note})
    return markup.table(rows, f"Clips of {summary['source']}", [run])


def quarantine(run: Run | None) -> HTML:
    """The files that were set aside and why."""
    listed = results.read_csv(run, "quarantine.csv")
    if listed is None:
        return markup.missing("Files set aside")
    if listed.empty:
        return markup.note("No file had to be set aside.")
    return markup.table(listed.to_dict("records"), "Files set aside", [run])


def sizes(params: Params, count: Run | None) -> HTML:
    """The published variants and this report's own: parameters counted on the class, and by formula."""
    counted = results.read_json(count, "summary.json") or {}
    names = dict.fromkeys((params.recipes[3].model.size, *published.SUPPORT))
    rows = []
    for name in names:
        config = params.dit_config(3) if name == params.recipes[3].model.size else SIZES[name]
        rows.append(
            {
                "model": name,
                "layers": config.num_layers,
                "width": config.width,
                "FFN width": config.ffn_width,
                "heads": config.num_heads,
                "counted on the class": f"{counted[name]['counted']:,}" if name in counted else markup.NOT_RUN,
                "by formula": f"{plan.parameter_count(config):,}",
                "rounded": _count(plan.parameter_count(config)),
                "position tables": f"{config.max_size}: {_count(plan.position_count(config))}",
                "published as": published.PARAMETERS.get(name, "-"),
            }
        )
    return markup.table(rows, "Variants of the transformer and their parameters", [count])


def recipe(params: Params, stage: int) -> HTML:
    """What a stage trains, on what, for how long."""
    own = params.recipes[stage]
    batch, settings = own.dataloader.batch_size, own.train.settings
    facts = {
        "model": own.model.size,
        "height x width": f"{own.dataset.size[0]}x{own.dataset.size[1]}",
        "aspect ratios": ", ".join(own.dataset.aspect_ratios) or "that of the size",
        "frames": ", ".join(map(str, own.dataset.frames)),
        "position tables (T, H, W)": own.model.max_size,
        "batch a worker": f"{batch.image_batch_size} images or {batch.video_batch_size} videos",
        "workers": f"{params.launch.worker_num} ({params.launch.device})",
        "updates": own.train.steps,
        "gradient accumulation": settings.gradient_accumulation_steps,
        "ZeRO stage": settings.zero_stage,
        "sequence-parallel shards": own.train.sequence_parallel.shards,
        "learning rate": own.train.lr_scheduler.lr,
        "times": f"{own.train.time_sampling}, shift {own.train.time_shift:g}",
    }
    rows = [{"parameter": name, "value": value} for name, value in facts.items()]
    return markup.table(rows, f"Recipe of stage {stage} at scale {params.scale}")


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
        own = params.recipes[stage]
        batch, recompute = own.dataloader.batch_size, own.model.recompute_every_nth_block
        rows.append(
            {
                "model": own.model.size,
                "stage": stage,
                "batch, images + videos": f"{batch.image_batch_size} + {batch.video_batch_size}",
                "frames and pixels": _view(params, stage),
                "recompute": "on" if recompute else "off",
                "shards": own.train.sequence_parallel.shards,
                "MindSpore 2.3.1": "-",
                "MindSpore 2.7.0": "-",
                "here": shown(results.seconds_per_step(run)) if run else markup.NOT_RUN,
            }
        )
    return markup.table(rows, "Seconds a training step: published (8 cards), and here", stages.values())


def costs(params: Params, stages: StageRuns) -> HTML:
    """Counted cost of each stage's step, on videos where it has them, and the arithmetic rate this machine reached."""
    rows = []
    for stage, run in stages.items():
        cost = plan.stage_cost(params, stage)
        seconds = results.seconds_per_step(run, "video" if params.recipes[stage].dataset.longest > 1 else "image")
        rows.append(
            {
                "stage": stage,
                "parameters": _count(cost.parameters + cost.positions),
                "tokens a sample": f"{cost.tokens:,}",
                "arithmetic a step": f"{plan.si(cost.flops)}FLOP",
                "state a rank": f"{plan.si(cost.state.total)}B",
                "s/step": shown(seconds) if seconds else markup.NOT_RUN,
                "rate reached": f"{plan.si(cost.flops / seconds)}FLOP/s" if seconds else markup.NOT_RUN,
            }
        )
    return markup.table(rows, f"Counted cost of the {params.scale} recipe, and speed here", stages.values())


def schedule_error(run: Run | None) -> HTML:
    """How far each schedule ends from the many-step solution, and how long it takes, by number of steps."""
    measured, summary = results.read_csv(run, "errors.csv"), results.read_json(run, "summary.json")
    if measured is None or summary is None:
        return markup.missing("Error and time of each schedule")
    rows = [
        {
            "schedule": row.schedule,
            "steps": row.steps,
            "relative error": shown(row.error),
            "least": shown(row.least),
            "most": shown(row.most),
            "wall time (s)": shown(row.seconds),
        }
        for row in measured.itertuples()
    ]
    steps, seconds = summary["reference_steps"], shown(summary["reference_seconds"])
    rows.append({"schedule": "linear, the reference", "steps": steps} | dict.fromkeys(list(rows[0])[2:5], "-"))
    rows[-1]["wall time (s)"] = seconds
    clip = f"{summary['size'][0]}x{summary['size'][1]}x{summary['frames']}"
    title = f"Error and time of each schedule, {summary['prompts']} captions in one batch, clips of {clip}"
    return markup.table(rows, title, [run])


def retrieval(run: Run | None) -> HTML:
    """How often the clip generated for a training caption is nearest to the clip of that caption, and by chance."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Clips found again")
    rows = [
        {
            "the nearest training clip": "has the same caption",
            "measured": percent(summary["share_nearest"]),
            "chance": percent(summary["chance"]),
            "goal": f"at least {percent(results.RETRIEVAL_GOAL)}",
        },
        {
            "the nearest training clip": "shows the same photograph",
            "measured": percent(summary["share_photograph"]),
            "chance": percent(summary["chance_photograph"]),
            "goal": "-",
        },
    ]
    shapes = ", ".join(summary["buckets"])
    title = f"{summary['prompts']} training captions among {summary['clips']} training clips in buckets {shapes}; "
    title += (
        f"{summary['steps']} equal steps, guidance {summary['guidance']:g}; mean rank {shown(summary['mean_rank'])}"
    )
    return markup.table(rows, title, [run])


def _count(parameters: int) -> str:
    """Parameters are counted in billions, not in giga."""
    return plan.si(parameters).replace("G", "B")


def _view(params: Params, stage: int) -> str:
    dataset = params.recipes[stage].dataset
    return f"{dataset.longest}x{dataset.size[0]}x{dataset.size[1]}"
