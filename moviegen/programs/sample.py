"""`python -m moviegen sample`: videos or images from captions, by guided Euler steps, then decoding (paper 3.4.2).

The report's run samples captions of both splits and leaves each generated clip beside the clip that its caption belongs
to; its own weights also leave two ways to one of them (`sample_ways`). `--prompts FILE` samples prompts of one's own
(`sample_prompts`).

Under `msrun` groups of `sample.shards` ranks take whole batches in turn: a batch holds the same prompts however many
groups there are, and so the same bits come out. Each latent is kept in `latents/` when it is there, and ranks decode
them in turn when all are; a run that was cut goes on with what is missing. Where weights are divided (ZeRO 3), or
tokens, all groups sample as often: one that has nothing left repeats what another does.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np

from moviegen import runs
from moviegen.config import ConfigError, Params, weights_file
from moviegen.data.clips import Clip
from moviegen.data.crops import centre_frames, spread
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.splits import load_split
from moviegen.data.videos import write_video
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.inference import described_config, load_described, load_stage, sampling_mesh
from moviegen.dit.model import DiT
from moviegen.dit.weights import for_sampling
from moviegen.flow.denoising import Way
from moviegen.flow.sampler import Prompt, batches, numbered
from moviegen.parallel.mesh import Mesh
from moviegen.programs.sample_prompts import PARAMETERS, sample_prompts
from moviegen.programs.sample_ways import DENOISED, denoise_share, picture_share, write_ways
from moviegen.programs.sampling_pipeline import STAGE, LatentPipeline, Pipeline, Progress, missing
from moviegen.runs.arrays import read_npz
from moviegen.runs.files import read_json, write_csv, write_json
from moviegen.runs.ranks import recorded
from moviegen.text.encoders import encoders, origins

# Kind of prompt -> the split it is of, and what it is of a clip there.
PROMPTS = {
    "unseen": ("mixkit_val", "caption"),
    "paraphrase": ("mixkit_train", "paraphrase"),
    "trained": ("mixkit_train", "caption"),
}
DENOISED_KIND = "trained"  # to the first clip of this kind ways are kept


def chosen_clips(run: runs.Run) -> list[tuple[str, str, Clip]]:
    """What to sample, with the clip each prompt belongs to: evenly spread over what can be asked of each of PROMPTS."""
    data, count = run.upstream("data"), run.params.sample.num_prompts
    chosen = []
    for kind, (split, text) in PROMPTS.items():
        clips = [clip for clip in load_split(data, split) if getattr(clip, text)]
        chosen += [(kind, getattr(clip, text), clip) for clip in spread(clips, count)]
    return chosen


def weights_of(run: runs.Run, world: World) -> tuple[DiT, Path, Mesh]:
    """The transformer, the TAE's file that a run samples with, the report's own or shipped ones, and the mesh of both.

    Raises:
        ConfigError: a file is not there, is damaged, or of another size; or shipped weights take other embeddings.
    """
    params, shipped = run.params, run.params.shipped
    if run.program.name != "shipped":
        mesh = sampling_mesh(params, world, params.dit_config(STAGE))
        transformer = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE, mesh)
        return transformer, run.upstream("tae-mixkit").folder / "tae.safetensors", mesh
    file = weights_file("shipped.transformer", shipped.transformer)
    mesh = sampling_mesh(params, world, described_config(file))
    transformer = load_described(file, mesh, params.sample.zero_stage)
    if transformer.config.text_widths != params.text.widths:
        raise ConfigError(
            f"shipped.transformer {shipped.transformer} takes embeddings {transformer.config.text_widths} wide, and "
            f"the encoders of `text` give {params.text.widths}: name its encoders, or no shipped weights"
        )
    return transformer, weights_file("shipped.tae", shipped.tae), mesh


def sample(run: runs.Run, world: World) -> None:
    """Samples, decodes and writes each caption's video, and its own clip beside it for comparison."""
    params, settings = run.params, run.params.sample
    transformer, tae, mesh = weights_of(run, world)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed_stored = partial(read_embeddings, embeddings, settings=params.text)
    pipeline = Pipeline(transformer, settings, tae, embed_stored, params.tae.tiling, mesh)
    clips = chosen_clips(run)
    prompts = numbered([text for _, text, _ in clips], params.seed)
    todo = missing(batches(prompts, settings.batch_size), lambda prompt: latent_file(run, prompt).exists())
    undecoded = [prompt for prompt in prompts if not row_file(run, prompt).exists()]
    denoised = next((prompt for prompt in prompts if clips[prompt.index][0] == DENOISED_KIND), None)
    schedules = DENOISED if denoised and run.program.name == "sample" else ()
    ways = [Way(run.folder / "denoising", name, settings.steps) for name in schedules]
    unfollowed, unseen = [way for way in ways if not way.file.exists()], [one for way in ways for one in way.unseen()]
    barrier(world)  # nobody writes before all have listed the same
    own = undecoded[world.rank :: world.size], unseen[world.rank :: world.size]
    turns = list(mesh.turns(unfollowed, settings.exchanges(mesh.shards)))
    progress = Progress(run.metrics_path, world, len(own[0]), len(turns) * settings.steps + len(own[1]))
    sample_share(run, pipeline, todo, progress)
    barrier(world)
    decode_share(run, pipeline, clips, own[0], progress)
    if denoised:  # the same on all ranks
        denoise_share(pipeline, prompts, denoised, turns, progress)
    barrier(world)
    picture_share(pipeline, own[1], progress)
    barrier(world)
    if world.is_main:
        write_samples(run, prompts)
        if denoised and ways:
            write_ways(run, denoised, ways)


def latent_file(run: runs.Run, prompt: Prompt) -> Path:
    """Where a run keeps a prompt's latent, with the seconds that it took, and whether nothing was compiled in them."""
    return run.folder / "latents" / f"{prompt.index:02d}.npz"


def row_file(run: runs.Run, prompt: Prompt) -> Path:
    """What a run says of a prompt when both of its videos are written."""
    return run.folder / "videos" / f"{prompt.index:02d}.json"


def sample_share(run: runs.Run, pipeline: LatentPipeline, todo: list[list[Prompt]], progress: Progress) -> None:
    """Samples this rank's batches. The first one's time holds the compilation, and a shorter one's another."""
    settings, first = pipeline.settings, None
    sizes = {prompt.index: len(batch) for batch in todo for prompt in batch}
    for prompt, latent, seconds in pipeline.latents(todo, progress.quiet, progress.step):
        batch = prompt.index // settings.batch_size
        first = batch if first is None else first
        is_steady = batch != first and sizes[prompt.index] == settings.batch_size
        path = latent_file(run, prompt)
        if pipeline.mesh.shard_rank == 0 and not path.exists():
            pipeline.write_latent(path, latent, seconds=seconds, is_steady=is_steady)


def decode_share(
    run: runs.Run,
    pipeline: Pipeline,
    clips: list[tuple[str, str, Clip]],
    todo: list[Prompt],
    progress: Progress,
) -> None:
    """Decodes this rank's latents and writes their videos. The first one's time holds the compilation."""
    settings = pipeline.settings
    for done, prompt in enumerate(todo, 1):
        kind, text, clip = clips[prompt.index]
        path = latent_file(run, prompt)
        latent, sampling, is_steady = read_npz(path, "latent_mean", "seconds", "is_steady", mend=f"remove {path}")
        started = time.perf_counter()
        generated, reference = (f"videos/{prompt.index:02d}-{kind}.mp4" for kind in ("generated", "reference"))
        write_video(run.folder / generated, pipeline.clip(latent), settings.fps)
        decoding = time.perf_counter() - started
        view = centre_frames(clip, min(clip.frames, settings.frames), *settings.size)
        write_video(run.folder / reference, view, clip.fps or settings.fps)  # at its own speed
        row = (prompt.index, kind, text, prompt.seed, generated, reference)
        seconds = {"sampling": [float(sampling), bool(is_steady)], "decoding": [decoding, done > 1]}
        write_json(row_file(run, prompt), {"row": row, "seconds": seconds})
        progress.clip(done, float(sampling) + decoding)


def write_samples(run: runs.Run, prompts: list[Prompt]) -> None:
    """Lists what all ranks made, and how long a clip takes where nothing is compiled."""
    made = [read_json(row_file(run, prompt), "remove it and sample again") for prompt in prompts]
    header = ("index", "kind", "prompt", "seed", "generated", "reference")
    write_csv(run.folder / "samples.csv", header, [one["row"] for one in made])
    seconds = [one["seconds"] for one in made]
    steady = {part: [one[part][0] for one in seconds if one[part][1]] for part in ("sampling", "decoding")}
    is_known = all(steady.values())
    summary = {
        "clips": len(made),
        "first_clip_seconds": seconds[0]["sampling"][0] + seconds[0]["decoding"][0],
        "seconds_per_clip": float(sum(map(np.mean, steady.values()))) if is_known else None,
    }
    write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`sample`: the report's clips, or those of prompts of one's own.

    Raises:
        ConfigError: an option for one's own prompts, and no prompts.
    """
    if options.shipped and not params.shipped.transformer:
        raise ConfigError("--shipped: shipped.transformer and shipped.tae name no weights")
    if options.shipped and options.prompts is not None:
        shipped = params.shipped
        raise ConfigError(
            f"--shipped is of the report's captions; for your own: --dit {shipped.transformer} --tae {shipped.tae}"
        )
    if options.prompts is not None:
        sample_prompts(params, options)
        return
    names = (*PARAMETERS, "output", "dit", "tae", "format")
    if given := [name for name in names if getattr(options, name) is not None]:
        raise ConfigError(
            f"--{given[0]} goes with --prompts FILE; the report's own clips take their parameters from the params file "
            f"and from --sample.steps and the like"
        )
    with recorded(params, "shipped" if options.shipped else "sample") as (run, world):
        sample(run, world)
