"""Of the overview: one caption, the real clip, and what the stages made of it, from what runs keep."""

from __future__ import annotations

import html
from typing import Any

from IPython.display import HTML

from moviegen.config import Params
from moviegen.data.splits import load_split
from moviegen.report import latents, markup, media, provenance, results
from moviegen.report.sections import maker
from moviegen.report.wording import percent
from moviegen.runs import Run

TITLES = {"trained": "One caption it was trained on", "unseen": "One caption it has not seen"}
MADE_BY = {"sample": "stage 3's clip", "schedule-error": "stage 2's latent"}  # by which program


def strip(
    params: Params, kind: str, data: Run | None, errors: Run | None, sample: Run | None, shipped: Run | None
) -> HTML:
    """The first caption of a kind: its own clip, and what stage 2, stage 3 and the shipped weights made of it."""
    row = sampled(sample, kind)
    if sample is None or row is None:
        return markup.note(
            f"<b>{TITLES[kind]}:</b> {provenance.why_absent(params, 'sample', sample)}. {made_by('sample')}"
        )
    tiles, notes = (
        [media.video(sample.folder / row["reference"], "the real clip")],
        ["Of stage 1 no run keeps a picture."],
    )
    if kind == "unseen":  # of others stage 2's latents are not kept
        tile, note = _stage_2(params, data, errors, sample, row)
        tiles, notes = tiles + tile, notes + note
    else:
        notes = ["Of stages 1 and 2 no run keeps a picture."]
    tiles.append(media.video(sample.folder / row["generated"], f"stage 3, seed {row['seed']}"))
    other = sampled(shipped, kind)
    if shipped is not None and other is not None:
        tiles.append(media.video(shipped.folder / other["generated"], f"shipped weights, seed {other['seed']}"))
    prompt = f'<p class="prompt">{html.escape(row["prompt"])}</p>'
    content = f'<div class="pair tiles">{prompt}{"".join(tiles)}</div><p class="run-line">{" ".join(notes)}</p>'
    return markup.card(content, TITLES[kind], [sample, errors if kind == "unseen" else None, shipped])


def sampled(run: Run | None, kind: str) -> dict[str, Any] | None:
    """The first line of samples.csv of a kind; None where there is none."""
    samples = results.read_csv(run, "samples.csv")
    chosen = samples[samples["kind"] == kind].to_dict("records") if samples is not None else []
    return chosen[0] if chosen else None


def made_by(program: str) -> str:
    """A sentence that names the notebook that starts a program."""
    section = maker(program)
    return (
        f'{MADE_BY[program][0].upper()}{MADE_BY[program][1:]} is made by <a href="{section.page}">{section.title}</a> '
        f"(notebooks/{section.notebook})."
    )


def _stage_2(
    params: Params, data: Run | None, errors: Run | None, sample: Run, row: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """The latent that stage 2 reached for this caption in many steps, in colours, and what is to be said of it."""
    if errors is None:
        return [], [made_by("schedule-error")]
    settings, colours = params.sample.schedule_error, latents.colours(sample)
    ends = latents.solution(errors, "reference", settings.reference_steps)
    captions = [clip.caption for clip in load_split(data, "mixkit_val")] if data else []
    if ends is None or colours is None or row["prompt"] not in captions[: len(ends)]:
        return [], ["Of stage 2 no run keeps a picture of this caption."]
    explained = f"{percent(colours.explained)} of the variance of sampled clips' colours"
    if not colours.is_telling:
        return [], [f"Stage 2's latent is not shown: a linear map of it explains {explained}."]
    place = captions.index(row["prompt"])
    image = media.picture(colours(ends[place])[0], "stage 2's latent in colours", params.sample.size[0])
    figure = f'<figure class="clip">{image}<figcaption>stage 2, seed {params.seed + place}</figcaption></figure>'
    note = f"Of stage 2 there is a latent: its first frame, in the colours of a linear map that explains {explained}."
    return [figure], [note]
