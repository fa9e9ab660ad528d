"""`python -m moviegen retrieval`: whether the clip generated for a training caption is nearest to that caption's clip.

A transformer that has learnt its few training clips gives each caption its own clip back; one that was told what
captions mean gives it back for a paraphrase too, on which nothing was trained. Latents are sampled for training
captions and their paraphrases with the weights, the view and the text of stage 3, in a few equal Euler steps, and are
not decoded. Each is compared with the latent mean of every training clip in its bucket by Euclidean distance: latents
of different shapes have none. Nothing is taken off or scaled first: a channel's mean over the training set is in both
sides of a difference, and cancels.

It is a hit where a clip of that caption is nearer than every clip of another caption; a tie is none. The sample set
has several clips of each photograph and of most scenes of its film: whether the nearest clip shows the caption's is the
easier question, and is answered beside it. Of other data nobody knows what a caption's scene is. `chance` is the share
of hits of a clip drawn at random from the bucket. A share's interval counts prompts as independent draws.

Ranks take batches of prompts in turn, as `sample` does; a batch's distances are kept in `distances/`, and a run that
was cut goes on with the batches that are missing. The run leaves `retrieval.csv`, a row a prompt, and `summary.json`,
which has captions and paraphrases apart.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moviegen import runs
from moviegen.config import Bucket, ConfigError, Params, from_root
from moviegen.data import film
from moviegen.data.clips import Clip
from moviegen.data.crops import spread
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.intervals import share_interval
from moviegen.data.latents import latent_file, latents_folder, load_latent, video_buckets
from moviegen.data.samples import SUBJECTS
from moviegen.data.splits import data_folder, load_split
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.inference import load_stage, sampling_mesh
from moviegen.dit.weights import for_sampling
from moviegen.flow import schedule
from moviegen.flow.sampler import Prompt, Sampler, batches, filled, numbered
from moviegen.runs.arrays import read_npz, save_npz
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.ranks import recorded, told_steps
from moviegen.text.encoders import encoders, origins

STAGE = 3
HEADER = ("index", "kind", "prompt", "nearest", "rank", "same_caption", "same_scene")
KINDS = ("caption", "paraphrase")  # of prompts: what a clip says of itself

Scenes = Callable[[str], frozenset[str]]  # what is to be seen by a caption


@dataclass(frozen=True)
class Question:
    """A prompt, of one of KINDS, and the caption whose clips are its own."""

    kind: str
    prompt: Prompt
    caption: str


def scenes_of(params: Params) -> Scenes:
    """The sample set's photographs that a caption names, or the scene of the film that it is of."""
    shots = film.shots(from_root(params.data.film)) if params.data.film else ()
    of_film = {shot.caption: frozenset([shot.scene]) for shot in shots}

    def scenes(caption: str) -> frozenset[str]:
        return of_film.get(caption, frozenset(name for name, words in SUBJECTS.items() if words in caption))

    return scenes


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


def summarise(
    distance: np.ndarray, captions: Sequence[str], clips: Sequence[str], scenes: Scenes
) -> tuple[dict, list[tuple]]:
    """Shares, and of each caption the nearest clip's place, rank, same caption, same scene (None: unknown).

    Args:
        distance: (captions, clips); infinite where a caption is not compared with a clip.
        captions: of whose clips each row should be nearest to one.
        clips: their captions.
        scenes: what a caption shows.
    """
    comparable = np.isfinite(distance)
    is_own = alike(captions, clips, lambda caption: frozenset([caption])) & comparable
    rank, nearest, row = ranks(distance, is_own), distance.argmin(1), np.arange(len(captions))
    hit, same = rank == 1, np.full(len(row), None)
    shares: dict[str, Any] = share("nearest", hit) | {"chance": chance(is_own, comparable)}
    of_scene = dict.fromkeys(("share_scene", "share_scene_ci95", "chance_scene"))
    if all(map(scenes, [*captions, *clips])):
        is_same = (is_own | alike(captions, clips, scenes)) & comparable
        same = is_same[row, nearest]
        of_scene = share("scene", same) | {"chance_scene": chance(is_same, comparable)}
    rows = list(zip(nearest.tolist(), rank.tolist(), hit.tolist(), same.tolist(), strict=True))
    summary = {"prompts": len(captions), **shares, **of_scene}
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


def questions_of(buckets: Mapping[Bucket, Iterable[Clip]], params: Params) -> dict[Bucket, list[Question]]:
    """Each bucket's, numbered bucket after bucket; of each kind at most `sample.retrieval.prompts`, evenly spread."""
    asked: dict[Bucket, list[tuple[str, str, str]]] = {bucket: [] for bucket in buckets}
    for kind in KINDS:
        texts = [(bucket, getattr(clip, kind), clip.caption) for bucket, clips in buckets.items() for clip in clips]
        told = [text for text in dict.fromkeys(texts) if text[1]]
        for bucket, text, caption in spread(told, params.sample.retrieval.prompts):
            asked[bucket].append((kind, text, caption))
    prompts = iter(numbered([text for those in asked.values() for _, text, _ in those], params.seed))
    return {
        bucket: [Question(kind, next(prompts), caption) for kind, _, caption in those]
        for bucket, those in asked.items()
    }


def compare(
    run: runs.Run, world: World, buckets: Mapping[Bucket, Mapping[Clip, Path]]
) -> tuple[list[Question], np.ndarray]:
    """Questions, and the distance of what is generated for each from each clip; infinite between buckets."""
    params, settings = run.params, run.params.sample.retrieval
    by_bucket = questions_of(buckets, params)
    prompts = {
        bucket: batches([question.prompt for question in those], settings.batch_size)
        for bucket, those in by_bucket.items()
    }
    missing = {
        bucket: [batch for batch in those if not distances_file(run, batch).exists()]
        for bucket, those in prompts.items()
    }
    barrier(world)  # nobody writes before all have listed the same
    if any(missing.values()):
        measure_share(run, world, buckets, missing)
    barrier(world)
    distance = np.full((sum(map(len, by_bucket.values())), sum(map(len, buckets.values()))), np.inf)
    last = 0
    for bucket, clips in buckets.items():
        first, last = last, last + len(clips)
        for batch in prompts[bucket]:
            file = distances_file(run, batch)
            (found,) = read_npz(file, "distance", mend=f"remove {file}")
            distance[[prompt.index for prompt in batch], first:last] = found
    return [question for those in by_bucket.values() for question in those], distance


def distances_file(run: runs.Run, batch: Sequence[Prompt]) -> Path:
    """Where a run keeps how far a batch of prompts lies from each clip of its bucket."""
    return run.folder / "distances" / f"{batch[0].index:04d}.npz"


def measure_share(
    run: runs.Run,
    world: World,
    buckets: Mapping[Bucket, Mapping[Clip, Path]],
    missing: Mapping[Bucket, list[list[Prompt]]],
) -> None:
    """Samples this rank's batches of those that are missing, and writes their distances."""
    params, settings = run.params, run.params.sample.retrieval
    mesh = sampling_mesh(params, world, params.dit_config(STAGE))
    dit = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE, mesh)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed = functools.partial(read_embeddings, embeddings, settings=params.text)
    sampler, times = Sampler(dit, embed, settings.guidance, next(iter(buckets))), schedule.linear(settings.steps)
    in_step = params.sample.exchanges(mesh.shards)
    turns = {bucket: list(mesh.turns(those, in_step)) for bucket, those in missing.items()}
    total = settings.steps * sum(map(len, turns.values()))
    with told_steps(run, world, total, "sampling", kind="step") as step:
        for bucket, own in turns.items():
            means = [load_latent(path)[0] for path in buckets[bucket].values()]
            at_size = sampler.at(bucket)
            for batch, is_own in own:
                latents = at_size(filled(batch, settings.batch_size) if in_step else batch, times, step)
                if is_own and mesh.shard_rank == 0:
                    save_npz(distances_file(run, batch), distance=distances(latents[: len(batch)], means))


def measure(run: runs.Run, world: World) -> None:
    """Samples and compares, and rank 0 writes what came out."""
    buckets, settings = training_clips(run), run.params.sample.retrieval
    clips = [clip for files in buckets.values() for clip in files]
    questions, distance = compare(run, world, buckets)
    if not world.is_main:
        return
    scenes = scenes_of(run.params)
    summary: dict[str, Any] = {"clips": len(clips), "buckets": list(map(str, buckets)), "steps": settings.steps}
    summary["guidance"], table = settings.guidance, []
    for kind in KINDS:
        asked = [question for question in questions if question.kind == kind]
        captions, those = [question.caption for question in asked], [question.prompt.index for question in asked]
        if not asked:
            continue
        summary[kind], found = summarise(distance[those], captions, [clip.caption for clip in clips], scenes)
        for question, (nearest, *row) in zip(asked, found, strict=True):
            prompt = question.prompt
            table.append((prompt.index, kind, prompt.caption, clips[nearest].path.name, *row))
    write_csv(run.folder / "retrieval.csv", HEADER, sorted(table))
    write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`retrieval`."""
    with recorded(params, "retrieval") as (run, world):
        measure(run, world)
