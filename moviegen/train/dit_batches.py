"""What training the transformer sees: latents and embeddings from the caches, cut into batches of one bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from moviegen import flow, plan, runs, text
from moviegen.config import ConfigError, Recipe, Text, from_root
from moviegen.data.buckets import Bucket
from moviegen.data.datasets import Clip
from moviegen.data.prepare import data_folder, load_split
from moviegen.device.collectives import World
from moviegen.precompute import (
    by_bucket,
    check_latents,
    check_origin,
    image_groups,
    latent_file,
    load_latent,
    video_groups,
)
from moviegen.train.loop import Batch

MEDIA, ORDER, NOISE = 1, 2, 3  # random streams of their own, beside those of (seed, batch number, rank)
VALIDATION_BATCH = 16  # samples at once, at most


@dataclass(frozen=True)
class Samples:
    """Latents of some clips of one bucket, and their captions' embeddings.

    Args:
        mean, std: (n, C, T', H', W').
        ul2, metaclip, byt5: (n, L, width); keep (n, sum of L).
    """

    mean: np.ndarray
    std: np.ndarray
    ul2: np.ndarray
    metaclip: np.ndarray
    byt5: np.ndarray
    keep: np.ndarray

    @property
    def text(self) -> tuple[np.ndarray, ...]:
        """What the network takes besides latent and time."""
        return self.ul2, self.metaclip, self.byt5, self.keep


@dataclass(frozen=True)
class LatentSet:
    """The clips of one bucket. Latents and embeddings stay on the disk until a batch asks for them.

    In stage 3 of `5B` a clip and its caption take 48 MB, and each of a host's ranks would hold all of them.

    Args:
        names: of the clips.
        read: their samples, by their places in `names`.
    """

    names: tuple[str, ...]
    read: Callable[[np.ndarray], Samples]


def latents_folder(run: runs.Run, stage: int) -> Path:
    """Where this stage's latents lie, once it is sure that this report's TAE made them.

    Raises:
        ConfigError: another TAE did, or there are none.
    """
    named = run.params.recipes[stage].dataset.tae_latent_folder
    folder = from_root(named) if named else run.upstream("latents").folder
    check_origin(folder, run.upstream("tae-mixkit").folder / "tae.safetensors")
    return folder


def load_sets(run: runs.Run, folder: Path, groups: Mapping[Bucket, list[Clip]]) -> dict[Bucket, LatentSet]:
    """The caches of clips by bucket; a clip that was set aside when they were made is left out.

    Raises:
        ConfigError: `folder` has no latent of any of them; a latent or an embedding is damaged or of another shape than
            the others; a caption has no embedding.
    """
    root, embeddings, sets = data_folder(run.params), text.stage_folder(run), {}
    for bucket, clips in sorted(groups.items()):
        files = {clip: path for clip in clips if (path := latent_file(folder, bucket, clip, root)).is_file()}
        if files:
            latents, captions = list(files.values()), [clip.caption for clip in files]
            check_latents(latents)  # better now than in the middle of training
            text.check_captions(embeddings, captions, run.params.text)
            read = partial(read_samples, latents, captions, embeddings, run.params.text)
            sets[bucket] = LatentSet(tuple(clip.path.name for clip in files), read)
    if groups and not sets:
        count, shapes = sum(map(len, groups.values())), ", ".join(map(str, sorted(groups)))
        raise ConfigError(f"{folder} has no latents of {shapes} for any of {count} clips")
    return sets


def read_samples(
    files: list[Path], captions: list[str], embeddings: Path, settings: Text, indices: np.ndarray
) -> Samples:
    """Samples of the clips at `indices` of `files` and `captions`; one that is asked for twice is read once.

    Raises:
        ConfigError: an embedding is missing, damaged or of the wrong shape; a latent is damaged.
    """
    once, places = np.unique(indices, return_inverse=True)
    mean, std = (np.stack(arrays) for arrays in zip(*(load_latent(files[i]) for i in once), strict=True))
    found = (mean, std, *text.read_embeddings(embeddings, [captions[i] for i in once], settings))
    return Samples(*(array[places] for array in found))


def epoch_batches(counts: Mapping[Bucket, int], size: int, rng: np.random.Generator) -> list[tuple[Bucket, np.ndarray]]:
    """An epoch of whole batches, each of one bucket: [(bucket, indices (size,) of its clips)].

    Every clip comes at least once: where a bucket's last batch is not full, the epoch's first clips of that bucket come
    once more.
    """
    batches = []
    for bucket, count in sorted(counts.items()):
        batches += [(bucket, row) for row in np.resize(rng.permutation(count), (-(-count // size), size))]
    return [batches[place] for place in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Batches:
    """Training batches that follow from (seed, step, micro-batch, rank) alone.

    Args:
        images, videos: what to draw from, by bucket; no videos in a stage of images, no images in a stage of videos.
        empty: the empty caption's embeddings, which replace a dropped caption's.
    """

    images: Mapping[Bucket, LatentSet]
    videos: Mapping[Bucket, LatentSet]
    empty: tuple[np.ndarray, ...]
    recipe: Recipe
    seed: int
    world: World

    def __post_init__(self) -> None:
        if not (self.images or self.videos):
            raise ConfigError("there is no clip to make a batch of")

    def __call__(self, step: int, micro: int) -> Batch:
        """The micro-batch of this rank; all ranks see the same medium and shape in the same step."""
        number = (step - 1) * self.recipe.train.settings.gradient_accumulation_steps + micro
        rank, ranks = self.world.rank, self.world.size
        media, turn = self._turn(number)
        sets, size = self._source(media)
        bucket, together = self._batch(media, turn, size * ranks)
        indices = together[rank * size : (rank + 1) * size]
        samples, rng = sets[bucket].read(indices), np.random.default_rng([self.seed, number, 1 + rank])
        x_1 = samples.mean + samples.std * normal(rng, samples.mean.shape)
        captions = _drop(samples.text, self.empty, rng.random(size) < self.recipe.dataset.text_drop_prob)
        train = self.recipe.train
        times = flow.training_times(rng, size, train.time_sampling, train.time_shift)
        tokens = size * plan.visual_tokens(*bucket) // train.sequence_parallel.shards
        inputs = (x_1, normal(rng, x_1.shape), times, *captions)
        return Batch(inputs, media, tuple(sets[bucket].names[i] for i in indices), tokens)

    def _turn(self, number: int) -> tuple[str, int]:
        """The medium of batch `number`, and how many of its medium came before."""
        if not (self.images and self.videos):
            return "image" if self.images else "video", number
        draws = np.random.default_rng([self.seed, 0, 0, MEDIA]).random(number + 1)  # so many draws are a millisecond
        is_image = draws < self.recipe.dataloader.image_ratio
        return ("image" if is_image[-1] else "video"), int((is_image[:-1] == is_image[-1]).sum())

    def _source(self, media: str) -> tuple[Mapping[Bucket, LatentSet], int]:
        """What a medium is drawn from, and how many samples a rank takes."""
        sizes = self.recipe.dataloader.batch_size
        return (self.images, sizes.image_batch_size) if media == "image" else (self.videos, sizes.video_batch_size)

    def _batch(self, media: str, turn: int, size: int) -> tuple[Bucket, np.ndarray]:
        """The `turn`-th batch of all ranks together, epoch after epoch."""
        sets, _ = self._source(media)
        counts = {bucket: len(held.names) for bucket, held in sets.items()}
        epoch, place = divmod(turn, sum(-(-count // size) for count in counts.values()))
        rng = np.random.default_rng([self.seed, epoch, media == "image", ORDER])
        return epoch_batches(counts, size, rng)[place]


def training_batches(run: runs.Run, stage: int, world: World) -> Batches:
    """What a stage trains on.

    Raises:
        ConfigError: there are no latents, or no clip fills a video of the stage.
    """
    recipe, clips = run.params.recipes[stage], load_split(run.upstream("data"), "mixkit_train")
    folder, images, videos = latents_folder(run, stage), image_groups(recipe, clips), video_groups(recipe, clips)
    if recipe.dataset.longest > 1 and not videos:
        longest = max(clip.frames for clip in clips)
        raise ConfigError(
            f"stage {stage}: none of {len(clips)} clips has a bucket of videos; dataset.frames is "
            f"{list(recipe.dataset.frames)} and the longest clip has {longest} frames"
        )
    images, videos = load_sets(run, folder, images), load_sets(run, folder, videos)
    return Batches(images, videos, text.stage_embeddings(run, [""]), recipe, run.params.seed, world)


@dataclass(frozen=True)
class ValidationBatches:
    """What the validation loss is the mean over: held-out clips at fixed times with fixed noise; this rank's part.

    Ranks take equally many (clip, time) pairs of each bucket, so that the mean over ranks is the mean over pairs; where
    a bucket's pairs do not divide, its first ones are taken twice.
    """

    sets: Mapping[Bucket, LatentSet]
    recipe: Recipe
    seed: int
    world: World

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """What the loss takes, batch after batch, all batches of a bucket of one size."""
        rank, ranks = self.world.rank, self.world.size
        times = flow.validation_times(self.recipe.valid.sampling_steps)
        for bucket, held in self.sets.items():
            pairs = len(held.names) * len(times)
            own = np.resize(np.arange(pairs), -(-pairs // ranks) * ranks)[rank::ranks]
            for part in own.reshape(-1, self._size(bucket, len(own))):
                clips, at = np.divmod(part, len(times))
                samples = held.read(clips)
                yield samples.mean, self._noise(clips, samples.mean.shape[1:]), times[at], *samples.text

    def _noise(self, clips: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The noise of each clip, the same at all its times: (B, *shape)."""
        return np.stack([normal(np.random.default_rng([self.seed, 0, clip, NOISE]), shape) for clip in clips])

    def _size(self, bucket: Bucket, count: int) -> int:
        """Samples in a batch: they divide `count`, and no batch is larger than in training, where it fits."""
        sizes = self.recipe.dataloader.batch_size
        most = sizes.video_batch_size if bucket.frames > 1 else sizes.image_batch_size
        return max(size for size in range(1, VALIDATION_BATCH + 1) if count % size == 0 and size <= max(1, most))


def validation_batches(run: runs.Run, stage: int, world: World) -> ValidationBatches:
    """What a stage is validated on: each held-out clip in its bucket."""
    recipe, clips = run.params.recipes[stage], load_split(run.upstream("data"), "mixkit_val")
    sets = load_sets(run, latents_folder(run, stage), by_bucket(clips, recipe.dataset.buckets))
    return ValidationBatches(sets, recipe, run.params.seed, world)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 noise."""
    return rng.standard_normal(shape, np.float32)


def _drop(
    embeddings: tuple[np.ndarray, ...], empty: tuple[np.ndarray, ...], dropped: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The captions' embeddings, the empty caption's where `dropped` (B,) says so."""
    return tuple(
        np.where(dropped.reshape(-1, *[1] * (array.ndim - 1)), nothing, array)
        for array, nothing in zip(embeddings, empty, strict=True)
    )
