"""The overview: what is supported, and the results on one page."""

from __future__ import annotations

from IPython.display import HTML

from moviegen.config import Params, load
from moviegen.plan.dit_memory import fullest
from moviegen.plan.verdict import Verdict
from moviegen.report import markup, provenance, published, results, sections
from moviegen.report.credits import film
from moviegen.report.encoders import text_encoders
from moviegen.report.glossary import glossary
from moviegen.report.planned import gib, room
from moviegen.report.results import StageRuns
from moviegen.report.tables import bare_table, table
from moviegen.report.wording import longest_clip, shown
from moviegen.runs import Run

__all__ = ["film", "glossary", "summary", "support", "text_encoders"]

STAGE_TITLES = {1: "stage 1: images", 2: "stage 2: images and videos", 3: "stage 3: higher resolution"}
LEGEND = {
    "verified here": "a training run of this report that ended, with its longest clips",
    "runs here": "this machine can train it, and has not yet",
    "fits by plan": "not run: counted, a card of the published kind holds what the recipe asks of it",
    "does not fit": "not run: counted, it does not",
}


def support(params: Params, stages: StageRuns) -> HTML:
    """What the original report claims of each size, and what is evident here: from a run, or else from the plan."""
    own = params.recipes[1].model.size
    rows = []
    for size, claims in published.SUPPORT.items():
        said = [f"{claim}: {clips}" for claim, clips in zip(claims, published.SUPPORT_CLIPS.values(), strict=True)]
        claimed = dict(zip(STAGE_TITLES.values(), said, strict=True))
        rows.append({"model": size, "source": "published: original report, eight Ascend cards", **claimed})
    for size in [*(size for size in published.SUPPORT if size != own), own]:
        used, found = (params, stages) if size == own else (load(size), {})
        here = {title: _evidence(used, stage, found.get(stage)) for stage, title in STAGE_TITLES.items()}
        rows.append({"model": size, "source": f"this report, recipe {used.scale}", **here})
    legend = "; ".join(f"<b>{word}</b>: {meaning}" for word, meaning in LEGEND.items())
    content = bare_table(rows) + markup.note(f"{legend}.").data
    return markup.card(content, "Support matrix by model and stage", stages.values())


def _evidence(params: Params, stage: int, run: Run | None) -> str:
    """What is known of a stage: its run, that it can run here, or whether the plan finds room for it."""
    program, dataset = f"stage{stage}", params.recipes[stage].dataset
    if run:
        return f"verified here: {longest_clip(dataset)}"
    if sections.can_run_here(params, program):
        return f"runs here: {longest_clip(dataset)}; {provenance.why_absent(params, program)}"
    clip, memory = fullest(params, stage)
    verdict = Verdict(memory, room(params))
    return f"{'fits by plan' if verdict.fits else 'does not fit'}: {clip}, {gib(memory.total)} of {gib(room(params))}"


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
