"""The ways by two schedules to the first clip of a training caption, which the report's own weights leave.

What is there after a few of the steps, and what it foretells (`flow.denoising`), are kept in `denoising/` as latents
and as pictures, which `denoising.csv` lists.
"""

from __future__ import annotations

import numpy as np

from moviegen import runs
from moviegen.config import TEMPORAL_COMPRESSION
from moviegen.data.videos import write_image
from moviegen.flow.denoising import Way, followed
from moviegen.flow.sampler import Prompt, batches, filled, full_steps
from moviegen.programs.sampling_pipeline import Pipeline, Progress
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import write_csv

DENOISED = ("linear", "linear-quadratic")  # schedules whose way is kept


def denoise_share(
    pipeline: Pipeline, prompts: list[Prompt], prompt: Prompt, turns: list[tuple[Way, bool]], progress: Progress
) -> None:
    """Keeps what is there, and what is foretold, on this rank's ways to one prompt's latent.

    It is sampled in the company that it had for its clip: the way by the same schedule ends in the same bits.
    """
    settings, sampler = pipeline.settings, pipeline.sampler
    batch = next(batch for batch in batches(prompts, settings.batch_size) if prompt in batch)
    place = batch.index(prompt)
    if settings.exchanges(pipeline.mesh.shards):
        batch = filled(batch, settings.batch_size)
    for way, is_own in turns:
        velocity = sampler.velocity(batch, full_steps(settings.steps, settings.guidance_gate))
        found = followed(sampler.noise(batch), velocity, way.times, way.after, progress.way)
        if is_own and pipeline.mesh.shard_rank == 0:
            save_npz(way.file, latents=found[:, :, place])


def picture_share(pipeline: Pipeline, todo: list[tuple[Way, int, bool]], progress: Progress) -> None:
    """Decodes the middle of this rank's latents of ways, as long as a tile, and writes the frame in its middle."""
    tile = pipeline.decode.tiling.frames // TEMPORAL_COMPRESSION
    for way, stop, is_foretold in todo:
        latent = way.latents[int(is_foretold), stop]
        start = max(0, (latent.shape[1] - tile) // 2)
        frames = list(pipeline.clip(latent[:, start : start + tile]))
        write_image(way.picture(stop, is_foretold), frames[len(frames) // 2])
        progress.way()


def write_ways(run: runs.Run, prompt: Prompt, ways: list[Way]) -> None:
    """Lists the pictures of the ways, and how far what is foretold is from where the way ends, by that one's length."""
    rows: list[tuple[object, ...]] = []
    for way in ways:
        foretold = way.latents[1].reshape(len(way.after), -1)
        distances = np.linalg.norm(foretold - foretold[-1], axis=1) / np.linalg.norm(foretold[-1])
        for stop, (after, distance) in enumerate(zip(way.after, distances, strict=True)):
            files = [way.picture(stop, is_foretold).relative_to(run.folder) for is_foretold in (False, True)]
            rows.append((way.schedule, after, way.times[after], float(distance), *files, prompt.caption, prompt.seed))
    header = ("schedule", "after", "time", "distance", "latent", "foretold", "prompt", "seed")
    write_csv(run.folder / "denoising.csv", header, rows)
