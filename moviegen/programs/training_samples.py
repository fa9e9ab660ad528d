"""Of `train --stage 1|2|3`: the captions that it samples at each validation, and what their latents decode to.

A run's folder `samples/` holds each latent, its clip or picture, and once the clip that its caption belongs to;
`samples.csv` lists them.
"""

from __future__ import annotations

import time
from functools import partial

from moviegen import runs
from moviegen.config import TrainingSamples
from moviegen.data.clips import SHOWN_FPS, Clip
from moviegen.data.crops import centre_frames, spread
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.formats import clip_writer
from moviegen.data.pixels import to_uint8
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow import schedule
from moviegen.flow.sampler import Sampler, numbered
from moviegen.runs.arrays import read_npz
from moviegen.runs.files import write_csv
from moviegen.tae.decoding import LatentDecoder
from moviegen.text.encoders import encoders, origins
from moviegen.train.checkpoint import POLL_SECONDS
from moviegen.train.samples import FOLDER, SampledLatents

SCHEDULE = "linear-quadratic"  # the paper's
KINDS = {"trained": "mixkit_train", "unseen": "mixkit_val"}  # of captions -> the split they are of
HEADER = ("step", "kind", "prompt", "seed", "generated", "reference")


def captioned_clips(run: runs.Run, count: int) -> list[tuple[str, Clip]]:
    """So many clips of each kind, evenly spread over those with a caption; the first is the first that is sampled."""
    data = run.upstream("data")
    return [
        (kind, clip)
        for kind, split in KINDS.items()
        for clip in spread([clip for clip in load_split(data, split) if clip.caption], count)
    ]


def sampled_latents(run: runs.Run, stage: int, dit: DiT, asked: TrainingSamples, world: World) -> SampledLatents:
    """What samples the stage's longest clips, at its size, from a rank's transformer."""
    frames, height, width = run.params.recipes[stage].dataset.longest_clip
    embeddings = embeddings_folder(run, stage, origins(encoders(run.params)))
    embed = partial(read_embeddings, embeddings, settings=run.params.text)
    captions = [clip.caption for _, clip in captioned_clips(run, asked.prompts)]
    return SampledLatents(
        Sampler(dit, embed, asked.guidance, (frames, height, width)),
        numbered(captions, run.params.seed),
        schedule.get(SCHEDULE, asked.steps),
        (frames, SHOWN_FPS),
        run.folder,
        world,
    )


def decode_samples(run: runs.Run, stage: int, sampled: SampledLatents) -> None:
    """Rank 0 decodes what is not there yet, and lists all; the others wait for the list."""
    listed = run.folder / "samples.csv"
    if sampled.world.is_main:
        write_csv(listed, HEADER, _decoded(run, stage, sampled))
    while not listed.is_file():  # not in a collective, whose time is limited
        time.sleep(POLL_SECONDS)


def _decoded(run: runs.Run, stage: int, sampled: SampledLatents) -> list[tuple[object, ...]]:
    """Writes the clips; returns the rows that list them."""
    frames, fps = sampled.clip
    suffix = ".png" if frames == 1 else ".mp4"
    clips = captioned_clips(run, len(sampled.prompts) // len(KINDS))
    references = {}
    for prompt, (_, clip) in zip(sampled.prompts, clips, strict=True):
        references[prompt] = run.folder / FOLDER / f"reference-{prompt.index:02d}{suffix}"
        view = centre_frames(clip, min(clip.frames, frames), *run.params.recipes[stage].dataset.size)
        clip_writer(references[prompt], frames)(references[prompt], view, clip.fps or fps)
    channels, weights = run.params.dit_config(stage).latent_channels, run.upstream("tae-mixkit").folder
    decode, rows = LatentDecoder(weights / "tae.safetensors", channels, run.params.tae.tiling), []
    for step, prompt, path in sampled.kept():
        generated = path.with_suffix(suffix)
        if not generated.is_file():
            (latent,) = read_npz(path, "latent_mean", mend=f"remove {path}")
            shown = (frame for piece in decode(latent, frames) for frame in to_uint8(piece))
            clip_writer(generated, frames)(generated, shown, fps)
        kind, files = clips[prompt.index][0], (generated, references[prompt])
        rows.append((step, kind, prompt.caption, prompt.seed, *(str(file.relative_to(run.folder)) for file in files)))
    return rows
