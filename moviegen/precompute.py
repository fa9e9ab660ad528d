"""`python -m moviegen precompute`: the TAE's latents of every clip, in its bucket of every stage.

On disk: `<frames>x<H>x<W>/<clip>-<hash of its path>.npz` with `latent_mean` and `latent_std` (C, T', H', W') float32,
normalised as the transformer takes them. The view of a clip is its centre frames, resized and centre-cropped; long
ones are encoded in tiles. `buckets.csv` counts each stage's clips by bucket. `summary.json` holds the checksum of the
TAE's weights: latents of another TAE are refused.

Under `msrun` each rank encodes its share of the clips.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from moviegen import device, runs
from moviegen.config import ConfigError, Params, Recipe
from moviegen.data import videos
from moviegen.data.buckets import Bucket, nearest
from moviegen.data.datasets import Clip
from moviegen.data.prepare import data_folder, load_split, write_rows
from moviegen.data.quarantine import Quarantine
from moviegen.device.collectives import World, barrier, join_world
from moviegen.files import checksum
from moviegen.tae.model import TAE, Encode
from moviegen.tae.tiling import TILE, encode_tiles, spans
from moviegen.tae.weights import load_tae
from moviegen.weights import npz_shapes, read_npz, replace_npz

MEND = "remove it and run `python -m moviegen precompute` again"


def by_bucket(clips: Iterable[Clip], buckets: Sequence[Bucket]) -> dict[Bucket, list[Clip]]:
    """Each clip in its nearest bucket, in the order given; buckets without clips are not there.

    Raises:
        ConfigError: a clip has no bucket.
    """
    found = defaultdict(list)
    for clip in clips:
        try:
            found[nearest(clip.frames, clip.height, clip.width, buckets)].append(clip)
        except ValueError as error:
            raise ConfigError(f"{clip.path}: {error}") from None
    return dict(found)


def image_groups(recipe: Recipe, clips: Iterable[Clip]) -> dict[Bucket, list[Clip]]:
    """What a stage draws images from, by bucket: a frame of any clip; nothing where it sees no images."""
    return by_bucket(clips, recipe.dataset.image_buckets) if recipe.sees_images else {}


def video_groups(recipe: Recipe, clips: Iterable[Clip]) -> dict[Bucket, list[Clip]]:
    """What a stage draws videos from, by bucket: clips that fill one of its lengths."""
    groups = by_bucket(clips, recipe.dataset.buckets)
    return {bucket: members for bucket, members in groups.items() if bucket.frames > 1}


def work(params: Params, clips: Sequence[Clip]) -> list[tuple[Bucket, Clip]]:
    """What is encoded, bucket after bucket: every clip in its bucket of each stage, and as an image of the stage."""
    found: dict[tuple[Bucket, Clip], None] = {}  # in order, and each once
    for recipe in params.recipes.values():
        for groups in (by_bucket(clips, recipe.dataset.buckets), image_groups(recipe, clips)):
            found |= {(bucket, clip): None for bucket, members in groups.items() for clip in members}
    return sorted(found, key=lambda pair: pair[0])


def latent_file(folder: Path, bucket: Bucket, clip: Clip, root: Path) -> Path:
    """Where a clip's latent lies in a folder of latents; `root` is the data folder."""
    place = Path(os.path.relpath(clip.path, root)).as_posix()  # clips of two folders may share a name
    mark = hashlib.sha256(place.encode()).hexdigest()[:8]
    return folder / str(bucket) / f"{clip.path.stem}-{mark}.npz"


def load_latent(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (C, T', H', W') each.

    Raises:
        ConfigError: the file is damaged.
    """
    mean, std = read_npz(path, "latent_mean", "latent_std", mend=MEND)
    return mean, std


def check_latents(files: Sequence[Path]) -> None:
    """Looks at the latents of one bucket without reading them.

    Raises:
        ConfigError: one is damaged, or of another shape than the first.
    """
    shapes = {path: npz_shapes(path, "latent_mean", "latent_std", mend=MEND) for path in files}
    first = shapes[files[0]]
    for path, found in shapes.items():
        if found != first:
            raise ConfigError(
                f"{path} holds latents of shapes {found}, and {files[0]} of {first}: remove the wrong one and run "
                f"`python -m moviegen precompute` again"
            )


def check_origin(folder: Path, weights: Path) -> None:
    """Refuses latents that another TAE made.

    Args:
        folder: what `precompute` wrote.
        weights: the TAE that will decode what is trained on them.

    Raises:
        ConfigError: the checksums differ, or the folder says nothing of its TAE.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise ConfigError(f"{folder} holds no finished latents (no summary.json): run `python -m moviegen precompute`")
    made_by, wanted = json.loads(summary.read_text()).get("tae_sha256"), checksum(weights)
    if made_by != wanted:
        raise ConfigError(
            f"the latents in {folder} were made by a TAE with checksum {str(made_by)[:12]}, and {weights} has "
            f"{wanted[:12]}: encode the clips again with `python -m moviegen precompute`, or use the TAE of then"
        )


def tiles(clip: Clip, bucket: Bucket) -> Iterator[np.ndarray]:
    """A clip as its bucket has it, tile by tile: (1, 3, t, H, W) in [-1, 1]."""
    frames, height, width = bucket
    indices = videos.clip_indices(clip.frames, frames)
    for start, stop in spans(frames, TILE):
        images = videos.read_frames(clip.path, indices[start:stop])
        yield videos.resize_and_crop(images, height, width)[None]


def encode(network: Encode, tae: TAE, clip: Clip, bucket: Bucket) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a clip's normalised latent, (C, T', H', W') each."""
    mean, logvar = encode_tiles(network, tiles(clip, bucket))
    return tae.normalize(mean)[0], np.exp(0.5 * logvar[0]) * np.float32(tae.config.scaling_factor)


def encode_share(run: runs.Run, clips: list[Clip], weights: Path, world: World) -> None:
    """Encodes this rank's share of what is not there yet; a run that was cut goes on where it was."""
    tae, root = load_tae(weights), data_folder(run.params)
    network, own = Encode(tae), clips[world.rank :: world.size]
    quarantine = Quarantine(run.folder / f"quarantine-{world.rank}.csv")
    metrics = runs.MetricsWriter(run.metrics_path) if world.is_main else None
    todo = work(run.params, own)
    for step, (bucket, clip) in enumerate(tqdm(todo, "encoding clips", disable=None if world.is_main else True), 1):
        path = latent_file(run.folder, bucket, clip, root)
        if path.exists() or clip in quarantine:
            continue
        try:
            mean, std = encode(network, tae, clip, bucket)
        except videos.BrokenVideo as error:
            quarantine.add(clip, error.reason)
            continue
        replace_npz(path, latent_mean=mean, latent_std=std)
        if metrics:
            metrics.write(kind="clip", step=step, steps=len(todo), clip=clip.path.name)


def write_index(run: runs.Run, clips: list[Clip], held_out: list[Clip], weights: Path) -> None:
    """Lists what there is; `summary.json` comes last."""
    root, rows, shapes = data_folder(run.params), [], {}
    for bucket, clip in work(run.params, clips + held_out):
        path = latent_file(run.folder, bucket, clip, root)
        if path.exists():
            rows.append((clip.path.name, *bucket, path.relative_to(run.folder)))
            shapes.setdefault(str(bucket), list(load_latent(path)[0].shape))
    write_rows(run.folder / "index.csv", ("clip", "frames", "height", "width", "file"), rows)
    write_occupancy(run, clips, held_out)
    set_aside = sum(len(Quarantine(path)) for path in run.folder.glob("quarantine-*.csv"))
    counts = {"clips": len(clips) + len(held_out), "set_aside": set_aside}
    runs.write_json(run.folder / "summary.json", counts | {"latents": shapes, "tae_sha256": checksum(weights)})


def write_occupancy(run: runs.Run, clips: list[Clip], held_out: list[Clip]) -> None:
    """`buckets.csv`: how many clips each stage draws from each bucket, and how many it validates on."""
    root, rows = data_folder(run.params), []
    for stage, recipe in run.params.recipes.items():
        drawn = image_groups(recipe, clips) | video_groups(recipe, clips)
        validated = by_bucket(held_out, recipe.dataset.buckets)
        for bucket in recipe.dataset.buckets:
            counts = (
                sum(latent_file(run.folder, bucket, clip, root).exists() for clip in group.get(bucket, []))
                for group in (drawn, validated)
            )
            rows.append((stage, *bucket, *counts))
    write_rows(run.folder / "buckets.csv", ("stage", "frames", "height", "width", "clips", "held_out"), rows)


def precompute(run: runs.Run, world: World) -> None:
    """Encodes every clip of both mixkit splits."""
    data, weights = run.upstream("data"), run.upstream("tae-mixkit").folder / "tae.safetensors"
    clips, held_out = load_split(data, "mixkit_train"), load_split(data, "mixkit_val")
    encode_share(run, clips + held_out, weights, world)
    barrier(world)
    if world.is_main:
        write_index(run, clips, held_out, weights)


def main(params: Params, options: argparse.Namespace) -> None:
    """`precompute`."""
    device.start(params.seed, params.launch)
    world, run = join_world(), runs.find(params, "latents")
    with runs.record(run) if world.is_main else nullcontext():
        precompute(run, world)
        barrier(world)
    barrier(world)  # the run is complete before a rank leaves: the notebook on its host looks for it
