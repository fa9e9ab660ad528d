"""The overview: what is supported, and the results on one page."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen.config import Params, load
from moviegen.plan.dit_memory import fullest
from moviegen.plan.published import TIMINGS
from moviegen.plan.verdict import Verdict
from moviegen.report import markup, provenance, published, results, sections
from moviegen.report.credits import film
from moviegen.report.encoders import text_encoders
from moviegen.report.glossary import glossary
from moviegen.report.pages.overview_strip import strip
from moviegen.report.pages.overview_way import way
from moviegen.report.planned import gib, room
from moviegen.report.results import StageRuns
from moviegen.report.tables import bare_table, table
from moviegen.report.wording import between, longest_clip, percent, shown, sides
from moviegen.runs import Run

__all__ = ["film", "glossary", "made_here", "numbers", "strip", "summary", "support", "text_encoders", "way"]

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


def made_here(params: Params) -> HTML:
    """What these pages were made with: the scale, its training, its workers and its clips."""
    settings, counts = params.sample, sorted({params.launch_of(stage).worker_num for stage in params.stages})
    workers = f"{' or '.join(map(str, counts))} worker{'s' if counts[-1] > 1 else ''} ({params.launch.device})"
    clip = f"{settings.frames} frames of {settings.size[0]}x{settings.size[1]} pixels"
    updates = ", ".join(f"{recipe.train.steps:,}" for recipe in params.recipes.values())
    tables = " to ".join(sides(recipe.model.max_size) for recipe in params.recipes.values())
    return markup.note(
        f"These pages show the recipe <b>{params.scale}</b>: {updates} updates in {len(params.recipes)} stages on "
        f"{workers}, position tables grown from {tables} patches (time, height, width), and sampled clips of {clip}."
    )


def numbers(params: Params, evaluation: Run | None, third: Run | None, sample: Run | None, found: Run | None) -> HTML:
    """The three numbers that matter, published and here, and whether they can be compared."""
    rows = [_reconstruction(params, evaluation), _retrieval(params, found), _speed(params, third, sample)]
    return table(rows, "Three numbers", [evaluation, found, third, sample])


def _reconstruction(params: Params, evaluation: Run | None) -> dict[str, Any]:
    """How well the autoencoder restores what it has not seen."""
    scores, rule = results.tae_scores(evaluation, "ucf101", "tae-opl-off"), params.tae.evaluation
    here, why = provenance.why_absent(params, "tae-evaluation", evaluation), "no: nothing was measured"
    if scores is not None:
        width = f" ± {scores['psnr_ci95']:.2g}" if scores["psnr_ci95"] is not None else ""
        here = f"{shown(scores['psnr'], 4)}{width} (n = {scores['clips']})"
        clips = "clips of your own" if params.data.root else "the sample set's clips"
        size, there = sides((*rule.size, rule.frames)), published.TAE_CLIP
        why = f"no: {clips} at {size}, {params.tae.model.base_channels} base channels; there UCF-101 at {there}"
        if params.data.root and size == there:
            why = "in part: clips of that size, of your folder's UCF-101; the published split is not known"
    published_score = shown(published.TAE_SCORES[0].psnr, 4)
    return {"": "TAE, PSNR of held-out clips (dB)", "published": published_score, "here": here, "comparable?": why}


def _retrieval(params: Params, found: Run | None) -> dict[str, Any]:
    """How often a training caption gives that caption's clip back."""
    captions = (results.read_json(found, "summary.json") or {}).get("caption")
    here = provenance.why_absent(params, "retrieval", found)
    if captions:
        interval = between(captions["share_nearest_ci95"])
        share = percent(captions["share_nearest"])
        here = f"{share} ({interval}, n = {captions['prompts']}); by chance {percent(captions['chance'])}"
    name = "transformer, training captions whose own clip is nearest"
    return {"": name, "published": "-", "here": here, "comparable?": "no: nothing like it is published"}


def _speed(params: Params, third: Run | None, sample: Run | None) -> dict[str, Any]:
    """Seconds of a step of stage 3, and of a sampled clip."""
    size = params.recipes[3].model.size
    there = next((one for one in TIMINGS if (one.size, one.stage) == (size, 3)), None)
    beside = there or next(one for one in TIMINGS if (one.size, one.stage) == ("1B", 3))
    step = results.seconds_per_step(third)
    clip = (results.read_json(sample, "summary.json") or {}).get("seconds_per_clip")
    here = provenance.why_absent(params, "stage3", third) if step is None else f"{shown(step)} a step"
    here += "" if clip is None else f"; {shown(clip)} a sampled clip"
    view, workers = longest_clip(params.recipes[3].dataset), params.launch_of(3).worker_num
    why = f"no: {size}, {view}, {workers} {params.launch.device}; there {beside.size}, {beside.resolution}, 8 cards"
    if there and params.launch.device != "CPU":
        why = f"in part: the same size; here {view} on {workers} cards, there {there.resolution} on 8"
    speed = f"{beside.mindspore_2_3_1:g} a step ({beside.size})"
    return {"": "stage 3, seconds", "published": speed, "here": here, "comparable?": why}


def summary(params: Params, evaluation: Run | None, stages: StageRuns, sample: Run | None) -> HTML:
    """The results on one page."""
    scores = results.tae_scores(evaluation, "ucf101", "tae-mixkit") or {}
    speed = results.read_json(sample, "summary.json") or {}
    found = [
        ("TAE reconstruction, PSNR (dB)", shown(scores.get("psnr"), 4), "tae-evaluation", evaluation),
        ("TAE reconstruction, SSIM", shown(scores.get("ssim")), "tae-evaluation", evaluation),
        ("TAE reconstruction, LPIPS", shown(scores.get("lpips")), "tae-evaluation", evaluation),
    ]
    for stage, run in stages.items():
        loss = shown(results.last(run, "validation", "loss"), 4)
        found.append((f"validation loss at the end of stage {stage}", loss, f"stage{stage}", run))
    found.append(("sampling (s/clip)", shown(speed.get("seconds_per_clip")), "sample", sample))
    rows = [
        {"result": name, "value": provenance.why_absent(params, program, run) if value == "-" else value}
        for name, value, program, run in found
    ]
    return table(rows, f"Results of the {params.scale} recipe", [evaluation, *stages.values(), sample])
