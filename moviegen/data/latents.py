"""The cache of latents: which clips are encoded at which sizes, and the files they lie in.

On disk: `<frames>x<H>x<W>/<clip>-<hash of its path>.npz` with `latent_mean` and `latent_std` (C, T', H', W') float32,
normalised as the transformer takes them. `index.csv` lists them (`data.index`). `summary.json` holds the checksum of
the TAE's weights: latents of another TAE are refused.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from moviegen.config import Bucket, ConfigError, Params, Recipe, from_root, nearest_bucket
from moviegen.data.clips import Clip
from moviegen.data.index import Cache
from moviegen.runs import Run
from moviegen.runs.arrays import read_npz
from moviegen.runs.files import read_json, shortened
from moviegen.runs.hashes import file_hash

COMMAND = "`python -m moviegen precompute`"
MEND = f"remove it and run {COMMAND} again"


def by_bucket(clips: Iterable[Clip], buckets: Sequence[Bucket]) -> dict[Bucket, list[Clip]]:
    """Each clip in its nearest bucket, in the order given; buckets without clips are not there.

    Raises:
        ConfigError: a clip has no bucket.
    """
    members = defaultdict(list)
    for clip in clips:
        try:
            members[nearest_bucket(clip.frames, clip.height, clip.width, buckets)].append(clip)
        except ValueError as error:
            raise ConfigError(f"{clip.path}: {error}") from None
    return dict(members)


def image_buckets(recipe: Recipe, clips: Iterable[Clip]) -> dict[Bucket, list[Clip]]:
    """What a stage draws images from, by bucket: a frame of any clip; nothing where it sees no images."""
    return by_bucket(clips, recipe.dataset.image_buckets) if recipe.sees_images else {}


def video_buckets(recipe: Recipe, clips: Iterable[Clip]) -> dict[Bucket, list[Clip]]:
    """What a stage draws videos from, by bucket: clips that fill one of its lengths."""
    buckets = by_bucket(clips, recipe.dataset.buckets)
    return {bucket: members for bucket, members in buckets.items() if bucket.frames > 1}


def clip_buckets(params: Params, clips: Sequence[Clip]) -> list[tuple[Bucket, Clip]]:
    """What is encoded, bucket after bucket: every clip in its bucket of each stage, and as an image of the stage."""
    pairs: dict[tuple[Bucket, Clip], None] = {}  # in order, and each once
    for recipe in params.recipes.values():
        for buckets in (by_bucket(clips, recipe.dataset.buckets), image_buckets(recipe, clips)):
            pairs |= {(bucket, clip): None for bucket, members in buckets.items() for clip in members}
    return sorted(pairs, key=lambda pair: pair[0])


def latent_file(folder: Path, bucket: Bucket, clip: Clip, root: Path) -> Path:
    """Where a clip's latent lies in a folder of latents; `root` is the data folder."""
    place = Path(os.path.relpath(clip.path, root)).as_posix()  # clips of two folders may share a name
    mark = hashlib.sha256(place.encode()).hexdigest()[:8]
    return folder / str(bucket) / f"{shortened(clip.path.stem)}-{mark}.npz"


def load_latent(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (C, T', H', W') each.

    Raises:
        ConfigError: the file is damaged.
    """
    mean, std = read_npz(path, "latent_mean", "latent_std", mend=MEND)
    return mean, std


def open_latents(folder: Path, looks: bool = True) -> Cache:
    """A folder of latents; see `Cache`."""
    return Cache.of(folder, MEND, looks)


def check_latents(cache: Cache, files: Sequence[Path]) -> None:
    """Looks at the latents of one bucket without reading them.

    Raises:
        ConfigError: one is damaged, or of another shape than the first.
    """
    shapes = cache.stored(files, "latent_mean", "latent_std")
    for path, shape in shapes.items():
        if shape != shapes[files[0]]:
            raise ConfigError(
                f"{path} holds latents of shapes {shape}, and {files[0]} of {shapes[files[0]]}: remove the wrong one "
                f"and run {COMMAND} again"
            )


def check_origin(folder: Path, weights: Path) -> None:
    """Refuses latents that another TAE made.

    Args:
        folder: what `encode_latents` wrote.
        weights: the TAE that will decode what is trained on them.

    Raises:
        ConfigError: the checksums differ, or the folder says nothing of its TAE.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise ConfigError(f"{folder} holds no finished latents (no summary.json): run {COMMAND}")
    encoder, decoder = read_json(summary, f"run {COMMAND} again").get("tae_sha256"), file_hash(weights)
    if encoder != decoder:
        raise ConfigError(
            f"the latents in {folder} were made by a TAE with checksum {str(encoder)[:12]}, and {weights} has "
            f"{decoder[:12]}: encode the clips again with {COMMAND}, or use the TAE of then"
        )


def latents_folder(run: Run, stage: int) -> Path:
    """Where a stage's latents lie, once it is sure that this report's TAE made them.

    Raises:
        ConfigError: another TAE did, or there are none.
    """
    named = run.params.recipes[stage].dataset.tae_latent_folder
    folder = from_root(named) if named else run.upstream("latents").folder
    check_origin(folder, run.upstream("tae-mixkit").folder / "tae.safetensors")
    return folder
