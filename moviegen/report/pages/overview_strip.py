"""Of the overview: one caption, the real clip, and what the stages made of it, from what runs keep."""

from __future__ import annotations

import html
from typing import Any

from IPython.display import HTML

from moviegen.config import Params
from moviegen.report import markup, media, provenance, results, samples
from moviegen.report.results import StageRuns
from moviegen.report.sections import maker
from moviegen.report.wording import listed
from moviegen.runs import Run

TITLES = {"trained": "One caption it was trained on", "unseen": "One caption it has not seen"}
MADE = {"sample": "Stage 3's clip"}  # by which program
EARLIER = (1, 2)  # stages of which there is what training sampled; of stage 3 there is a clip in all its steps


def strip(params: Params, kind: str, stages: StageRuns, sample: Run | None, shipped: Run | None) -> HTML:
    """The first caption of a kind: its own clip, and what stages 1, 2 and 3 and the shipped weights made of it."""
    row = sampled(sample, kind)
    if sample is None or row is None:
        return markup.note(
            f"<b>{TITLES[kind]}:</b> {provenance.why_absent(params, 'sample', sample)}. {made_by('sample')}"
        )
    caption = row["prompt"]
    kept = {stage: rows for stage in EARLIER if (rows := samples.of_caption(stages.get(stage), kind, caption))}
    earlier = {stage: run for stage in kept if (run := stages[stage])}
    tiles = [media.video(sample.folder / row["reference"], "the real clip", f"the clip captioned: {caption}")]
    tiles += [_tile(run, kept[stage][-1], f"stage {stage}") for stage, run in earlier.items()]
    tiles.append(_tile(sample, row, "stage 3"))
    other = sampled(shipped, kind)
    if shipped is not None and other is not None:
        tiles.append(_tile(shipped, other, "shipped weights"))
    prompt = f'<p class="prompt">{html.escape(caption)}</p>'
    said = f'<p class="run-line">{_said(earlier, sample)}</p>'
    content = f'<div class="pair tiles">{prompt}{"".join(tiles)}</div>{said}'
    return markup.card(content, TITLES[kind], [*earlier.values(), sample, shipped])


def sampled(run: Run | None, kind: str) -> dict[str, Any] | None:
    """The first line of samples.csv of a kind; None where there is none."""
    found = results.read_csv(run, "samples.csv")
    chosen = found[found["kind"] == kind].to_dict("records") if found is not None else []
    return chosen[0] if chosen else None


def made_by(program: str) -> str:
    """A sentence that names the notebook that starts a program."""
    section = maker(program)
    return f'{MADE[program]} is made by <a href="{section.page}">{section.title}</a> (notebooks/{section.notebook}).'


def _tile(run: Run, row: dict[str, Any], maker: str) -> str:
    """What some weights made of a caption."""
    named = f"{maker}, seed {row['seed']}"
    return samples.tile(run.folder / row["generated"], named, f"{named}, sampled from: {row['prompt']}")


def _said(earlier: dict[int, Run], sample: Run) -> str:
    """In how many steps each stage's was sampled, and of which there is nothing."""
    asked = {stage: run.params.recipes[stage].valid.samples for stage, run in earlier.items()}
    steps = {stage: one.steps for stage, one in asked.items() if one} | {3: sample.params.sample.steps}
    counts = [f"stage {stage} in {count}" for stage, count in steps.items()]
    said = f"Sampled by the weights at the end of a stage's training: {listed(counts)} steps."
    missing = [f"stage {stage}" for stage in EARLIER if stage not in earlier]
    return f"{said} Of {listed(missing)} training kept no sample of this caption." if missing else said
