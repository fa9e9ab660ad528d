"""The overview: what is supported, and the results on one page."""

from __future__ import annotations

from IPython.display import HTML

from moviegen.config import Params
from moviegen.report import markup, published, results
from moviegen.report.credits import film
from moviegen.report.encoders import text_encoders
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import longest_clip, shown
from moviegen.runs import Run

__all__ = ["film", "summary", "support", "text_encoders"]

STAGE_TITLES = {1: "1: images, 256 px", 2: "2: images and videos, 256 px", 3: "3: images and videos, 768 px"}


def support(params: Params, stages: StageRuns) -> HTML:
    """What the original report supports, and what was run for this page."""
    rows = [
        {"model": size, **dict(zip(STAGE_TITLES.values(), support, strict=True)), "source": "original report"}
        for size, support in published.SUPPORT.items()
    ]
    views = {stage: longest_clip(params.recipes[stage].dataset) for stage in stages}
    here = [f"trained here at {views[stage]}" if run else markup.NOT_RUN for stage, run in stages.items()]
    measured = dict(zip(STAGE_TITLES.values(), here, strict=True))
    rows.append({"model": params.recipes[1].model.size, **measured, "source": "this report"})
    return table(rows, "Support matrix by model and stage", stages.values())


def summary(params: Params, evaluation: Run | None, stages: StageRuns, sample: Run | None) -> HTML:
    """The results on one page."""
    scores = results.tae_scores(evaluation, "ucf101", "tae-mixkit") or {}
    speed = results.read_json(sample, "summary.json") or {}
    rows = [
        {"result": "TAE reconstruction, PSNR (dB)", "value": shown(scores.get("psnr"), 4)},
        {"result": "TAE reconstruction, SSIM", "value": shown(scores.get("ssim"))},
        {"result": "TAE reconstruction, LPIPS", "value": shown(scores.get("lpips"))},
    ]
    for stage, run in stages.items():
        loss = results.last(run, "validation", "loss")
        rows.append({"result": f"validation loss at the end of stage {stage}", "value": shown(loss, 4)})
    rows.append({"result": "sampling (s/clip)", "value": shown(speed.get("seconds_per_clip"))})
    for row in rows:
        row["value"] = markup.NOT_RUN if row["value"] == "-" else row["value"]
    return table(rows, f"Results of the {params.scale} recipe", [evaluation, *stages.values(), sample])
