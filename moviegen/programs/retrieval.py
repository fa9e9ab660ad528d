"""`python -m moviegen retrieval`: whether the clip generated for a training caption is nearest to that caption's clip.

A transformer that has learnt its few training clips gives each caption its own clip back. Latents are sampled for
training captions with the weights, the view and the text of stage 3, in a few equal Euler steps, and are not decoded.
Each is compared with the latent mean of every training clip in its bucket by Euclidean distance: latents of different
shapes have none. Nothing is taken off or scaled first: a channel's mean over the training set is in both sides of a
difference, and cancels.

It is a hit where a clip of that caption is nearer than every clip of another caption; a tie is none. Clips of the
sample set show few photographs, several clips each: whether the nearest clip shows the caption's photograph is the
easier question, and is answered beside it. Of other data nobody knows what a caption's photograph is. `chance` is the
share of hits of a clip drawn at random from the bucket. A share's interval counts captions as independent draws.

The run leaves `retrieval.csv`, a row a caption, and `summary.json`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import runs
from moviegen.config import Bucket, ConfigError, Params
from moviegen.data.clips import Clip
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.intervals import share_interval
from moviegen.data.latents import latent_file, latents_folder, load_latent, video_buckets
from moviegen.data.samples import SUBJECTS
from moviegen.data.splits import data_folder, load_split
from moviegen.dit.weights import for_sampling, load_stage
from moviegen.flow import schedule
from moviegen.flow.sampler import Prompt, Sampler, batches, numbered
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.ranks import recorded
from moviegen.text.encoders import encoders, origins

STAGE = 3
HEADER = ("index", "caption", "nearest", "rank", "same_caption", "same_photograph")


def photographs(caption: str) -> frozenset[str]:
    """The sample set's photographs that a caption names."""
    return frozenset(name for name, words in SUBJECTS.items() if words in caption)


def distances(latents: np.ndarray, means: Iterable[np.ndarray]) -> np.ndarray:
    """Euclidean distance of each latent (n, ...) from each clip's mean (...): (n, clips)."""
    flat = latents.reshape(len(latents), -1)
    return np.stack([np.linalg.norm(flat - mean.reshape(-1), axis=1) for mean in means], 1)


def ranks(distance: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """1 + how many other clips are as near as the nearest of a latent's own.

    Args:
        distance: (n, clips).
        is_own: (n, clips) bool.

    Returns:
        (n,).
    """
    best = np.where(is_own, distance, np.inf).min(1, keepdims=True)
    return 1 + ((distance <= best) & ~is_own).sum(1)


def alike(captions: Sequence[str], clips: Sequence[str], of: Callable[[str], frozenset[str]]) -> np.ndarray:
    """Which clips' captions share something of each caption's: (captions, clips) bool."""
    there = [of(clip) for clip in clips]
    return np.array([[bool(of(caption) & other) for other in there] for caption in captions])


def chance(hits: np.ndarray, comparable: np.ndarray) -> float:
    """The share of hits of clips drawn at random from those that each caption is compared with."""
    return float((hits.sum(1) / comparable.sum(1)).mean())


def share(of: str, hits: np.ndarray) -> dict[str, Any]:
    """`share_<of>`: the share of a bool a caption that is true, and its 95 % interval (Wilson's)."""
    return {f"share_{of}": float(hits.mean()), f"share_{of}_ci95": share_interval(int(hits.sum()), len(hits))}


def summarise(distance: np.ndarray, captions: Sequence[str], clips: Sequence[str]) -> tuple[dict, list[tuple]]:
    """Shares, and of each caption the nearest clip's place, rank, same caption, same photograph (None: unknown).

    Args:
        distance: (captions, clips); infinite where a caption is not compared with a clip.
        clips: their captions.
    """
    comparable = np.isfinite(distance)
    is_own = alike(captions, clips, lambda caption: frozenset([caption])) & comparable
    rank, nearest, row = ranks(distance, is_own), distance.argmin(1), np.arange(len(captions))
    hit, same = rank == 1, np.full(len(row), None)
    shares: dict[str, Any] = share("nearest", hit) | {"chance": chance(is_own, comparable)}
    of_photograph = dict.fromkeys(("share_photograph", "share_photograph_ci95", "chance_photograph"))
    if all(map(photographs, [*captions, *clips])):
        is_same = (is_own | alike(captions, clips, photographs)) & comparable
        same = is_same[row, nearest]
        of_photograph = share("photograph", same) | {"chance_photograph": chance(is_same, comparable)}
    rows = list(zip(nearest.tolist(), rank.tolist(), hit.tolist(), same.tolist(), strict=True))
    summary = {"prompts": len(captions), "clips": len(clips), **shares, **of_photograph}
    return summary | {"mean_rank": float(rank.mean())}, rows


def training_clips(run: runs.Run) -> dict[Bucket, dict[Clip, Path]]:
    """The training clips of stage 3's videos with their latents, by bucket, the largest bucket first.

    Raises:
        ConfigError: there are no latents.
    """
    recipe, folder, root = run.params.recipes[STAGE], latents_folder(run, STAGE), data_folder(run.params)
    buckets = video_buckets(recipe, load_split(run.upstream("data"), "mixkit_train"))
    files = {
        bucket: {clip: path for clip in clips if (path := latent_file(folder, bucket, clip, root)).is_file()}
        for bucket, clips in sorted(buckets.items())
    }
    if not any(files.values()):
        raise ConfigError(f"{folder} has no latent of a training clip at a size of stage {STAGE}'s videos")
    return {bucket: files[bucket] for bucket in sorted(files, key=lambda bucket: -len(files[bucket])) if files[bucket]}


def prompts_of(buckets: Mapping[Bucket, Iterable[Clip]], params: Params) -> dict[Bucket, list[Prompt]]:
    """Each bucket's captions, numbered bucket after bucket, no more in all than `sample.retrieval.prompts`."""
    captions = {bucket: list(dict.fromkeys(clip.caption for clip in clips)) for bucket, clips in buckets.items()}
    prompts = numbered(list(itertools.chain(*captions.values())), params.seed)[: params.sample.retrieval.prompts]
    remaining = iter(prompts)
    return {bucket: list(itertools.islice(remaining, len(members))) for bucket, members in captions.items()}


def compare(run: runs.Run, buckets: Mapping[Bucket, Mapping[Clip, Path]]) -> tuple[list[str], np.ndarray]:
    """Captions, and the distance of what is generated for each from each clip; infinite between buckets."""
    params, settings = run.params, run.params.sample.retrieval
    dit = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed = functools.partial(read_embeddings, embeddings, settings=params.text)
    times = schedule.linear(settings.steps)
    prompts, last = prompts_of(buckets, params), 0
    captions = [prompt.caption for members in prompts.values() for prompt in members]
    sampler = Sampler(dit, embed, settings.guidance, next(iter(buckets)))
    distance = np.full((len(captions), sum(map(len, buckets.values()))), np.inf)
    metrics = runs.MetricsWriter(run.metrics_path)
    metrics.drop_after(0)
    with tqdm(total=len(captions), desc="sampling", disable=None) as bar:
        for bucket, clips in buckets.items():
            first, last = last, last + len(clips)
            means = [load_latent(path)[0] for path in clips.values()]
            at_size = sampler.at(bucket)
            for batch in batches(prompts[bucket], settings.batch_size):
                rows = [prompt.index for prompt in batch]
                distance[rows, first:last] = distances(at_size(batch, times), means)
                bar.update(len(batch))
                metrics.write(kind="prompts", step=rows[-1] + 1, steps=len(captions))
    return captions, distance


def measure(run: runs.Run) -> None:
    """Samples, compares, and writes what came out."""
    buckets, settings = training_clips(run), run.params.sample.retrieval
    clips = [clip for files in buckets.values() for clip in files]
    captions, distance = compare(run, buckets)
    summary, rows = summarise(distance, captions, [clip.caption for clip in clips])
    rows = [(index, captions[index], clips[row[0]].path.name, *row[1:]) for index, row in enumerate(rows)]
    write_csv(run.folder / "retrieval.csv", HEADER, rows)
    sampled = {"buckets": list(map(str, buckets)), "steps": settings.steps, "guidance": settings.guidance}
    write_json(run.folder / "summary.json", summary | sampled)


def main(params: Params, options: argparse.Namespace) -> None:
    """`retrieval`."""
    with recorded(params, "retrieval") as (run, _):
        measure(run)
