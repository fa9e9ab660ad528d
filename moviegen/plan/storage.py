"""Bytes on disk of a data set's caches and of training, and what training reads, by counting.

What writes them: `data.latents`, `data.embeddings`, `train.checkpoint`. Clips, the autoencoder's runs and what sampling
leaves come on top, and so does what the file system adds to a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from moviegen.config import Bucket, ConfigError, Params, Recipe, TextEncoder, latent_size
from moviegen.plan.flops import parameter_count, position_count
from moviegen.plan.memory import FLOAT32

FLOAT16, INT64, BOOL = 2, 8, 1
# A `.npz` is a zip of `.npy` files, not compressed: for each the zip's header, with 20 bytes for sizes beyond 4 GB, and
# an entry in its directory, both with the file's name; the `.npy`'s own header; one end of the directory.
ZIP_MEMBER, ZIP_END, NPY_HEADER = 30 + 20 + 46, 22, 128
LATENT_ARRAYS = ("latent_mean", "latent_std")


@dataclass(frozen=True)
class CheckpointBytes:
    """Bytes of the arrays of a stage's checkpoint, of all ranks: what N saved, M load.

    Each rank's file has a header beside them, which names its tensors, about 200 bytes each; `state.json` is 1 kB.

    Attributes:
        weights, average: float32; the average is 0 where none is kept.
        optimizer: both moments, float32, and the count of updates.
        kept: how many of them stay.
        most: how many there are at once, as one is written before another is dropped.
    """

    weights: int
    optimizer: int
    average: int
    kept: int
    most: int

    @property
    def total(self) -> int:
        """Of one."""
        return self.weights + self.optimizer + self.average

    @property
    def on_disk(self) -> int:
        """Of as many as there are at once."""
        return self.most * self.total

    @property
    def trained(self) -> int:
        """What a stage leaves when it has ended: its weights, and their average."""
        return self.weights + self.average


@dataclass(frozen=True)
class Caches:
    """Bytes of the files that training reads.

    Attributes:
        latents: by bucket, those of all clips.
        embeddings: by encoder, those of all captions and of the empty one.
    """

    latents: dict[Bucket, int]
    embeddings: dict[str, int]

    @property
    def total(self) -> int:
        """Of all."""
        return sum(self.latents.values()) + sum(self.embeddings.values())


@dataclass(frozen=True)
class Reading:
    """What all ranks of a stage read.

    Attributes:
        update: bytes an update.
        rate: bytes/s.
    """

    update: int
    rate: float


def data_caches(params: Params, clips: int, captions: int | None = None) -> Caches:
    """What so many clips take, the most: each of 16:9 or so, as long as the longest videos, and with its own caption
    of as many tokens as its encoders take.

    A clip is encoded once in each bucket that a stage asks for: its longest videos, and one frame where it sees images.

    Raises:
        ConfigError: there are no clips, or less than no captions.
    """
    captions = clips if captions is None else captions
    if clips < 1 or captions < 0:
        raise ConfigError(f"{clips} clips of {captions} captions make no data set: give 1 clip or more, and 0 captions")
    channels = params.tae.model.latent_channels
    return Caches(
        latents={bucket: clips * latent_file_bytes(bucket, channels) for bucket in clip_buckets(params)},
        embeddings={
            name: (captions + 1) * embedding_file_bytes(encoder) for name, encoder in params.text.encoders.items()
        },
    )


def clip_buckets(params: Params) -> list[Bucket]:
    """The buckets in which a clip of each stage's own size and longest length is encoded, each once."""
    found = set()
    for recipe in params.recipes.values():
        lengths = {recipe.dataset.longest} | ({1} if recipe.sees_images else set())
        found |= {Bucket(frames, *recipe.dataset.size) for frames in lengths}
    return sorted(found)


def latent_file_bytes(bucket: Bucket, channels: int) -> int:
    """A clip's latent as it lies on the disk: mean and standard deviation, (C, T', H', W') float32 each."""
    numbers = channels * math.prod(latent_size(*bucket))
    return _npz_bytes(LATENT_ARRAYS, 2 * FLOAT32 * numbers)


def embedding_file_bytes(encoder: TextEncoder, tokens: int | None = None) -> int:
    """A caption of n tokens, or the most, through one encoder: (n, width) float16, (L,) bytes, tokens (n,) int64."""
    tokens = encoder.max_tokens if tokens is None else tokens
    return _npz_bytes(
        ("text_emb", "mask", "tokens"), BOOL * encoder.max_tokens + tokens * (FLOAT16 * encoder.width + INT64)
    )


def checkpoint_bytes(params: Params, stage: int) -> CheckpointBytes:
    """What a stage's checkpoints hold, and how many there are at its end."""
    recipe, config = params.recipes[stage], params.dit_config(stage)
    weights = FLOAT32 * (parameter_count(config) + position_count(config))
    average = weights if recipe.train.ema else 0
    kept, most = checkpoint_counts(recipe)
    return CheckpointBytes(weights, 2 * weights + FLOAT32, average, kept, most)


def checkpoint_counts(recipe: Recipe) -> tuple[int, int]:
    """How many stay at the end, and how many there are at once.

    The newest `save.keep` stay; or those of the lowest validation loss, and the newest if it is none of them.
    """
    save = recipe.train.save
    written = -(-recipe.train.steps // save.interval)  # one at the last step too
    kept = save.keep + (save.ckpt_save_policy == "top_k")
    return min(written, kept), min(written, kept + 1)


def training_reads(params: Params, stage: int, seconds: float, clip: Bucket | None = None) -> Reading:
    """What training reads at a speed; without a clip, of its longest videos, or images if it has only those.

    Every rank reads its own samples, those of a shard group all the same ones. Of an embedding the tokens are not read.

    Args:
        seconds: an update takes.

    Raises:
        ConfigError: it takes no time.
    """
    if not seconds > 0:
        raise ConfigError(f"an update of {seconds} s has no rate: give seconds above 0")
    recipe, launch = params.recipes[stage], params.launch_of(stage)
    clip = clip or recipe.dataset.longest_clip
    batch = recipe.dataloader.batch_size
    samples = batch.samples(clip)
    all_samples = samples * launch.worker_num * recipe.train.settings.gradient_accumulation_steps
    update = all_samples * sample_bytes(params, clip)
    return Reading(update, update / seconds)


def sample_bytes(params: Params, clip: Bucket) -> int:
    """The arrays of a training sample, the most: mean and standard deviation, of each encoder embedding and mask."""
    latent = 2 * FLOAT32 * params.tae.model.latent_channels * math.prod(latent_size(*clip))
    text = (encoder.max_tokens * (FLOAT16 * encoder.width + BOOL) for encoder in params.text.encoders.values())
    return latent + sum(text)


def _npz_bytes(names: Iterable[str], arrays: int) -> int:
    """A `.npz` of arrays of these names and of so many bytes together."""
    return arrays + ZIP_END + sum(ZIP_MEMBER + 2 * len(f"{name}.npy") + NPY_HEADER for name in names)
