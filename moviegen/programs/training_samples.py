"""Of `train --stage 1|2|3`: the captions that it samples at each validation, and what their latents decode to.

A run's folder `samples/` holds each latent beside its clip or picture, and `samples.csv` lists them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from moviegen import runs
from moviegen.config import Bucket, Recipe, TrainingSamples, visual_tokens
from moviegen.data.clips import SHOWN_FPS
from moviegen.data.crops import spread
from moviegen.data.embeddings import check_captions, read_embeddings
from moviegen.data.formats import clip_writer
from moviegen.data.index import Cache
from moviegen.data.pixels import to_uint8
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow import schedule
from moviegen.flow.sampler import Sampler, asked_texts, numbered
from moviegen.runs.arrays import read_npz
from moviegen.runs.files import write_csv
from moviegen.tae.decoding import LatentDecoder
from moviegen.train.checkpoint import POLL_SECONDS
from moviegen.train.samples import SampledLatents

SCHEDULE = "linear-quadratic"  # the paper's
KINDS = {"trained": "mixkit_train", "unseen": "mixkit_val"}  # of captions -> the split they are of
HEADER = ("step", "kind", "prompt", "seed", "generated")


def captions_of(run: runs.Run, count: int) -> list[tuple[str, str]]:
    """At most so many captions of each kind, evenly spread, with their kind; the first of each is `sample`'s first."""
    data = run.upstream("data")
    captions = {kind: [clip.caption for clip in load_split(data, split)] for kind, split in KINDS.items()}
    return [
        (kind, one) for kind, all_of_them in captions.items() for one in spread(list(filter(None, all_of_them)), count)
    ]


def sampling_graphs(recipe: Recipe, asked: TrainingSamples) -> dict[tuple[int, int], list[Bucket]]:
    """What sampling compiles: the one clip's shape by samples, with guidance two, and tokens."""
    longest = recipe.dataset.longest_clip
    return {(len(asked_texts([""], asked.guidance)), visual_tokens(*longest)): [longest]}


def sampled_latents(
    run: runs.Run, stage: int, dit: DiT, asked: TrainingSamples, embeddings: Cache, world: World
) -> SampledLatents:
    """What samples the stage's longest clips, at its size, from a rank's transformer."""
    frames, height, width = run.params.recipes[stage].dataset.longest_clip
    embed = partial(read_embeddings, embeddings.folder, settings=run.params.text)
    captions = [caption for _, caption in captions_of(run, asked.prompts)]
    check_captions(embeddings, captions, run.params.text)  # better now than after hours
    if world.is_main:  # of an attempt that was stopped: the others wait for the new one
        _listed(run).unlink(missing_ok=True)
    return SampledLatents(
        Sampler(dit, embed, asked.guidance, (frames, height, width)),
        numbered(captions, run.params.seed),
        schedule.get(SCHEDULE, asked.steps),
        (frames, SHOWN_FPS),
        run.folder,
        world,
    )


def decode_samples(run: runs.Run, stage: int, asked: TrainingSamples, sampled: SampledLatents) -> None:
    """Rank 0 decodes what is not there yet, and lists all; the others wait for the list."""
    listed = _listed(run)
    if sampled.world.is_main:
        write_csv(listed, HEADER, _decoded(run, stage, asked, sampled))
    while not listed.is_file():  # not in a collective, whose time is limited
        time.sleep(POLL_SECONDS)


def _listed(run: runs.Run) -> Path:
    return run.folder / "samples.csv"


def _decoded(
    run: runs.Run, stage: int, asked: TrainingSamples, sampled: SampledLatents
) -> Iterator[tuple[object, ...]]:
    """Writes the clips; yields the rows that list them."""
    frames, fps = sampled.clip
    kinds = [kind for kind, _ in captions_of(run, asked.prompts)]
    channels, weights = run.params.dit_config(stage).latent_channels, run.upstream("tae-mixkit").folder
    decode = LatentDecoder(weights / "tae.safetensors", channels, run.params.tae.tiling)
    for step, prompt, path in sampled.kept():
        generated = path.with_suffix(".png" if frames == 1 else ".mp4")
        if not generated.is_file():
            (latent,) = read_npz(path, "latent_mean", mend=f"remove {path}")
            shown = (frame for piece in decode(latent, frames) for frame in to_uint8(piece))
            clip_writer(generated, frames)(generated, shown, fps)
        file = str(generated.relative_to(run.folder))
        yield step, kinds[prompt.index], prompt.caption, prompt.seed, file
