"""`python -m moviegen precompute`: the TAE's latents of every clip, in its bucket of every stage.

The view of a clip is its centre frames, resized and centre-cropped; long ones are encoded in tiles. Beside the latents
(see `data.latents`) `index.csv` lists them, and `buckets.csv` counts each stage's clips by bucket. Under `msrun` each
rank encodes its share of the clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from moviegen import runs
from moviegen.config import Bucket, Params, Tiling
from moviegen.data import index
from moviegen.data.choice import round_robin
from moviegen.data.clips import Clip, read_windows
from moviegen.data.latents import MEND, by_bucket, clip_buckets, image_buckets, latent_file, video_buckets
from moviegen.data.pixels import clip_indices, cover, tiles_of
from moviegen.data.quarantine import Quarantine
from moviegen.data.splits import data_folder, load_split
from moviegen.data.videos import BrokenVideo
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.hashes import file_hash
from moviegen.runs.patience import Patience
from moviegen.runs.ranks import recorded
from moviegen.tae.model import TAE, Encode
from moviegen.tae.tiling import Window, encode_tiles
from moviegen.tae.weights import load_tae


def windows(clip: Clip, bucket: Bucket, tiling: Tiling) -> Iterator[Window]:
    """A clip as its bucket has it, as many frames at once as a tile has."""
    frames, height, width = bucket
    indices = clip_indices(clip.frames, frames)
    for read in read_windows(clip, (indices[start:stop] for start, stop in tiling.encoded(frames))):
        yield tiles_of(list(cover(read, height, width)))


def encode(network: Encode, tae: TAE, clip: Clip, bucket: Bucket, tiling: Tiling) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a clip's normalised latent, (C, T', H', W') each."""
    parts = encode_tiles(network, windows(clip, bucket, tiling), (bucket.height, bucket.width), tiling)
    mean, logvar = (np.concatenate(moment, 2) for moment in zip(*parts, strict=True))
    return tae.normalize(mean)[0], np.exp(0.5 * logvar[0]) * np.float32(tae.config.scaling_factor)


def encode_share(run: runs.Run, clips: list[Clip], weights: Path, world: World) -> None:
    """Encodes this rank's share of what is not there yet; a run that was cut goes on where it was.

    Buckets take turns, so that soon it is known how long each takes.

    Raises:
        ConfigError: all would take longer than `data.patience_hours`.
    """
    tae, root = load_tae(weights), data_folder(run.params)
    network = Encode(tae)
    share = round_robin(clip_buckets(run.params, clips[world.rank :: world.size]), lambda pair: pair[0])
    encoded = [bucket for bucket, clip in share if latent_file(run.folder, bucket, clip, root).exists()]
    patience = Patience(run.params, "encoding the clips", [bucket for bucket, _ in share], len(clips), encoded)
    quarantine = Quarantine(run.folder / f"quarantine-{world.rank}.csv")
    metrics = runs.MetricsWriter(run.metrics_path) if world.is_main else None
    for step, (bucket, clip) in enumerate(tqdm(share, "encoding clips", disable=None if world.is_main else True), 1):
        path = latent_file(run.folder, bucket, clip, root)
        if path.exists() or clip in quarantine:
            continue
        try:
            mean, std = encode(network, tae, clip, bucket, run.params.tae.tiling)
        except BrokenVideo as error:
            quarantine.add(clip, error.reason)
            continue
        save_npz(path, latent_mean=mean, latent_std=std)
        index.note(run.folder, world.rank, path, mean)
        if metrics:
            metrics.write(kind="clip", step=step, steps=len(share), clip=clip.path.name)
        patience.done(bucket)


def write_index(run: runs.Run, clips: list[Clip], held_out: list[Clip], weights: Path) -> None:
    """Lists what there is, as ranks have noted it; `summary.json` comes last."""
    root = data_folder(run.params)
    pairs = clip_buckets(run.params, clips + held_out)
    files = {latent_file(run.folder, bucket, clip, root): clip.path.name for bucket, clip in pairs}
    there = {path: name for path, name in files.items() if path.exists()}
    stored = index.join(run.folder, there, "latent_mean", MEND)
    shapes = {path.parent.name: list(one.shape) for path, one in stored.items()}
    write_occupancy(run, clips, held_out)
    set_aside = sum(len(Quarantine(path)) for path in run.folder.glob("quarantine-*.csv"))
    counts = {"clips": len(clips) + len(held_out), "set_aside": set_aside}
    write_json(run.folder / "summary.json", counts | {"latents": shapes, "tae_sha256": file_hash(weights)})


def write_occupancy(run: runs.Run, clips: list[Clip], held_out: list[Clip]) -> None:
    """`buckets.csv`: how many clips each stage draws from each bucket, and how many it validates on."""
    root, rows = data_folder(run.params), []
    for stage, recipe in run.params.recipes.items():
        drawn = image_buckets(recipe, clips) | video_buckets(recipe, clips)
        validated = by_bucket(held_out, recipe.dataset.buckets)
        for bucket in recipe.dataset.buckets:
            counts = (
                sum(latent_file(run.folder, bucket, clip, root).exists() for clip in members.get(bucket, []))
                for members in (drawn, validated)
            )
            rows.append((stage, *bucket, *counts))
    write_csv(run.folder / "buckets.csv", ("stage", "frames", "height", "width", "clips", "held_out"), rows)


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
    with recorded(params, "latents") as (run, world):
        precompute(run, world)
