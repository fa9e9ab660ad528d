"""Of the overview: one caption's way from text to a clip, with the numbers of the run that took it."""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np
from IPython.display import HTML

from moviegen.config import Params, latent_size, visual_tokens
from moviegen.data import videos
from moviegen.data.embeddings import caption_file
from moviegen.flow.schedule import get
from moviegen.report import latents, markup, media, provenance
from moviegen.report.encoders import TITLES
from moviegen.report.pages.overview_strip import made_by, sampled
from moviegen.report.results import read_json
from moviegen.report.tables import table
from moviegen.report.wording import duration, shown
from moviegen.runs import Run

TITLE = "One caption's way to a clip"
HEIGHT = 96  # of the pictures


def way(params: Params, text: Run | None, sample: Run | None) -> HTML:
    """What text, tokens, noise, steps, latent and clip are, of the first clip sampled of a caption trained on."""
    row = sampled(sample, "trained") or sampled(sample, "unseen")
    if sample is None or row is None:
        return markup.note(f"<b>{TITLE}:</b> {provenance.why_absent(params, 'sample', sample)}. {made_by('sample')}")
    file, colours = latents.sample_file(sample, row["index"]), latents.colours(sample)
    latent = latents.load(file, "latent_mean") if file.is_file() else None
    pictures = {"clip": media.picture(videos.read_frames(sample.folder / row["generated"], [0])[0], "a frame", HEIGHT)}
    if latent is not None and colours is not None and colours.is_telling:
        pictures["latent"] = media.picture(colours(latent)[0], "the latent's first frame in colours", HEIGHT)
    rows = [
        {"": step, "here": f"{html.escape(said)}{pictures.get(step, '')}"}
        for step, said in _said(params, text, sample, row, latent).items()
    ]
    return table(rows, TITLE, [sample, text], raw=["here"])


def _said(
    params: Params, text: Run | None, sample: Run, row: dict[str, Any], latent: np.ndarray | None
) -> dict[str, str]:
    """The numbers of each step of the way."""
    settings, clip = params.sample, (params.sample.frames, *params.sample.size)
    shape = (params.dit_config(3).latent_channels, *latent_size(*clip))
    numbers, values = math.prod(shape), 3 * math.prod(clip)
    first = shown(float(get(settings.schedule, settings.steps)[1]))
    return {
        "text": f"“{row['prompt']}”, {len(row['prompt'].split())} words",
        "tokens": _tokens(params, text, row["prompt"]),
        "noise": f"{_times(shape)} = {numbers:,} numbers of a normal distribution, seed {row['seed']}",
        "steps": f"{settings.steps} ({settings.schedule}), the first {first} of the way; the transformer is asked "
        f"{_asked(params)} times about {visual_tokens(*clip):,} visual tokens{_seconds(sample, row, 'sampling')}",
        "latent": "as many numbers as the noise"
        + ("" if latent is None else f", of standard deviation {shown(float(latent.std()))}"),
        "clip": f"{_times((*clip, 3))} = {values:,} values, {values / numbers:.0f} for each number of the "
        f"latent{_seconds(sample, row, 'decoding')}",
    }


def _tokens(params: Params, text: Run | None, prompt: str) -> str:
    """How many tokens each encoder made of a caption."""
    parts = []
    for name, encoder in params.text.encoders.items():
        file = caption_file(text.folder, name, prompt) if text else None
        filled = int(latents.load(file, "mask").sum()) if file and file.is_file() else None
        count = f"up to {encoder.max_tokens}" if filled is None else f"{filled} of {encoder.max_tokens}"
        parts.append(f"{TITLES[name]}: {count} tokens, {encoder.width} numbers each")
    return "; ".join(parts)


def _asked(params: Params) -> int:
    """How often the network is asked: with the caption and, where guidance needs it, without."""
    settings = params.sample
    if settings.guidance in (0, 1):
        return settings.steps
    whole = max(1, math.ceil(settings.guidance_gate * settings.steps))
    return settings.steps + whole


def _seconds(sample: Run, row: dict[str, Any], part: str) -> str:
    """What the run says of the time that sampling or decoding took."""
    kept = (read_json(sample, f"videos/{row['index']:02d}.json") or {}).get("seconds", {})
    if part not in kept:
        return ""
    seconds, is_steady = kept[part]
    return f": {duration(seconds)}{'' if is_steady else ', with compiling'}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
