"""`python -m moviegen retrieval`: whether the clip generated for a training caption is nearest to that caption's clip.

A transformer that has learnt its few training clips gives each caption its own clip back. Latents are sampled for
training captions with the weights, the view and the text of stage 3, in a few equal Euler steps, and are not decoded.
Each is compared with the latent mean of every training clip in that view by Euclidean distance. Nothing is taken off or
scaled first: a channel's mean over the training set is in both sides of a difference, and cancels.

It is a hit where a clip of that caption is nearer than every clip of another caption; a tie is none. Clips of the
sample set show few photographs, several clips each: whether the nearest clip shows the caption's photograph is the
easier question, and is answered beside it. Of other data nobody knows what a caption's photograph is. `chance` is the
share of hits of a clip drawn at random.

The run leaves `retrieval.csv`, a row a caption, and `summary.json`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from moviegen import device, runs, schedule, text
from moviegen.config import ConfigError, Params
from moviegen.data.buckets import Bucket
from moviegen.data.datasets import Clip
from moviegen.data.prepare import data_folder, load_split, write_rows
from moviegen.data.samples import SUBJECTS
from moviegen.dit.weights import for_sampling
from moviegen.precompute import latent_file, load_latent, video_groups
from moviegen.sample import Sampler, batches, load_trained, numbered
from moviegen.train.dit_batches import latents_folder
from moviegen.weights import CheckpointError

STAGE = 3
HEADER = ("index", "caption", "nearest", "rank", "same_caption", "same_photograph")


def photographs(caption: str) -> frozenset[str]:
    """The sample set's photographs that a caption names."""
    return frozenset(name for name, words in SUBJECTS.items() if words in caption)


def distances(latents: np.ndarray, means: Iterable[np.ndarray]) -> np.ndarray:
    """Euclidean distance of each latent (n, ...) from each clip's mean (...): (n, clips)."""
    flat = latents.reshape(len(latents), -1)
    return np.stack([np.linalg.norm(flat - mean.reshape(-1), axis=1) for mean in means], 1)


def ranks(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    """1 + how many other clips are as near as the nearest of a latent's own: (n, clips) distances and bools -> (n,)."""
    best = np.where(own, found, np.inf).min(1, keepdims=True)
    return 1 + ((found <= best) & ~own).sum(1)


def alike(captions: Sequence[str], clips: Sequence[str], of: Callable[[str], frozenset[str]]) -> np.ndarray:
    """Which clips' captions share something of each caption's: (captions, clips) bool."""
    there = [of(clip) for clip in clips]
    return np.array([[bool(of(caption) & other) for other in there] for caption in captions])


def summarise(found: np.ndarray, captions: Sequence[str], clips: Sequence[str]) -> tuple[dict, list[tuple]]:
    """Shares, and of each caption the nearest clip's place, rank, same caption, same photograph (None: unknown).

    Args:
        found: distances (captions, clips).
        clips: their captions.
    """
    own = alike(captions, clips, lambda caption: frozenset([caption]))
    rank, nearest, row = ranks(found, own), found.argmin(1), np.arange(len(captions))
    hit, shares = rank == 1, {"share_nearest": None, "chance": float(own.mean())}
    shares["share_nearest"] = float(hit.mean())
    known = all(map(photographs, [*captions, *clips]))
    photograph = own | alike(captions, clips, photographs) if known else None
    same = photograph[row, nearest] if known else [None] * len(row)
    shares["share_photograph"] = float(same.mean()) if known else None
    shares["chance_photograph"] = float(photograph.mean()) if known else None
    rows = [
        (int(place), int(at), bool(is_hit), None if is_same is None else bool(is_same))
        for place, at, is_hit, is_same in zip(nearest, rank, hit, same, strict=True)
    ]
    return {"prompts": len(captions), "clips": len(clips), **shares, "mean_rank": float(rank.mean())}, rows


def training_clips(run: runs.Run) -> tuple[Bucket, dict[Clip, Path]]:
    """The bucket of stage 3 that holds most training clips, and its clips with their latents.

    Latents of different shapes have no distance: the other buckets' clips are left out.

    Raises:
        ConfigError: there are no latents.
    """
    recipe, folder, root = run.params.recipes[STAGE], latents_folder(run, STAGE), data_folder(run.params)
    groups = video_groups(recipe, load_split(run.upstream("data"), "mixkit_train"))
    files = {
        bucket: {clip: path for clip in clips if (path := latent_file(folder, bucket, clip, root)).is_file()}
        for bucket, clips in sorted(groups.items())
    }
    bucket = max(files, key=lambda bucket: len(files[bucket]), default=None)
    if bucket is None or not files[bucket]:
        raise ConfigError(f"{folder} has no latent of a training clip at a size of stage {STAGE}'s videos")
    return bucket, files[bucket]


def generate(run: runs.Run, captions: Sequence[str], bucket: Bucket) -> np.ndarray:
    """A latent for each caption, (n, C, T', H', W')."""
    params, settings = run.params, run.params.sample.retrieval
    dit = load_trained(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE)
    embed = functools.partial(text.load_embeddings, run.upstream("text"))
    sampler, times = Sampler(dit, embed, settings.guidance, bucket), schedule.linear(settings.steps)
    metrics, latents = runs.MetricsWriter(run.metrics_path), []
    metrics.drop_after(0)
    for batch in tqdm(batches(numbered(captions, params.seed), settings.batch_size), "sampling", disable=None):
        latents.extend(sampler(batch, times))
        metrics.write(kind="prompts", step=len(latents), steps=len(captions))
    return np.stack(latents)


def measure(run: runs.Run) -> None:
    """Samples, compares, and writes what came out."""
    bucket, files = training_clips(run)
    clips, settings = list(files), run.params.sample.retrieval
    captions = list(dict.fromkeys(clip.caption for clip in clips))[: settings.prompts]
    latents = generate(run, captions, bucket)
    found = distances(latents, (load_latent(path)[0] for path in files.values()))
    summary, rows = summarise(found, captions, [clip.caption for clip in clips])
    rows = [(index, captions[index], clips[row[0]].path.name, *row[1:]) for index, row in enumerate(rows)]
    write_rows(run.folder / "retrieval.csv", HEADER, rows)
    sampled = {"frames": bucket.frames, "size": [bucket.height, bucket.width], "steps": settings.steps}
    runs.write_json(run.folder / "summary.json", summary | sampled | {"guidance": settings.guidance})


def main(params: Params, options: argparse.Namespace) -> None:
    """`retrieval`."""
    del options
    device.start(params.seed, params.launch.jit_level, params.launch.max_device_memory)
    with runs.record(runs.find(params, "retrieval")) as run:
        try:
            measure(run)
        except CheckpointError as error:
            raise ConfigError(str(error)) from error
