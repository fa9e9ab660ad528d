"""Batches of a training stage: samples of one bucket, drawn by (seed, step, micro-batch, rank) alone.

Where samples come from is not known here: a `ClipSet` reads those it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from moviegen.config import Bucket, ConfigError, Recipe, visual_tokens
from moviegen.device.world import World
from moviegen.flow import path
from moviegen.train.loop import Batch

MEDIA, ORDER, NOISE = 1, 2, 3  # random streams of their own, beside those of (seed, batch number, rank)
VALIDATION_BATCH = 16  # samples at once, at most


@dataclass(frozen=True)
class Samples:
    """Latents of some clips of one bucket, and their captions.

    Args:
        mean, std: (n, C, T', H', W').
        text: what the network takes of the captions, n rows each.
    """

    mean: np.ndarray
    std: np.ndarray
    text: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class ClipSet:
    """The clips of one bucket. Latents and embeddings stay on the disk until a batch asks for them.

    In stage 3 of `5B` a clip and its caption take 48 MB, and each of a host's ranks would hold all of them.

    Args:
        names: of the clips.
        read: their samples, by their places in `names`.
    """

    names: tuple[str, ...]
    read: Callable[[np.ndarray], Samples]


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

    images: Mapping[Bucket, ClipSet]
    videos: Mapping[Bucket, ClipSet]
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
        bucket, batch = self._batch(media, turn, size * ranks)
        indices = batch[rank * size : (rank + 1) * size]
        samples, rng = sets[bucket].read(indices), np.random.default_rng([self.seed, number, 1 + rank])
        x_1 = samples.mean + samples.std * normal(rng, samples.mean.shape)
        captions = _drop(samples.text, self.empty, rng.random(size) < self.recipe.dataset.text_drop_prob)
        train = self.recipe.train
        times = path.training_times(rng, size, train.time_sampling, train.time_shift)
        tokens = size * visual_tokens(*bucket) // train.sequence_parallel.shards
        noise = normal(rng, x_1.shape)
        if hidden := self.recipe.dataset.token_drop_prob:
            captions = (*captions[:-1], _hide(captions[-1], rng.random(captions[-1].shape) < hidden))
        inputs = (x_1, noise, times, *captions)
        return Batch(inputs, media, tuple(sets[bucket].names[i] for i in indices), tokens)

    def _turn(self, number: int) -> tuple[str, int]:
        """The medium of batch `number`, and how many of its medium came before."""
        if not (self.images and self.videos):
            return "image" if self.images else "video", number
        draws = np.random.default_rng([self.seed, 0, 0, MEDIA]).random(number + 1)  # so many draws are a millisecond
        is_image = draws < self.recipe.dataloader.image_ratio
        return ("image" if is_image[-1] else "video"), int((is_image[:-1] == is_image[-1]).sum())

    def _source(self, media: str) -> tuple[Mapping[Bucket, ClipSet], int]:
        """What a medium is drawn from, and how many samples a rank takes."""
        sizes = self.recipe.dataloader.batch_size
        return (self.images, sizes.image_batch_size) if media == "image" else (self.videos, sizes.video_batch_size)

    def _batch(self, media: str, turn: int, size: int) -> tuple[Bucket, np.ndarray]:
        """The `turn`-th batch of all ranks together, epoch after epoch."""
        sets, _ = self._source(media)
        counts = {bucket: len(clips.names) for bucket, clips in sets.items()}
        epoch, place = divmod(turn, sum(-(-count // size) for count in counts.values()))
        rng = np.random.default_rng([self.seed, epoch, media == "image", ORDER])
        return epoch_batches(counts, size, rng)[place]


@dataclass(frozen=True)
class ValidationBatches:
    """What the validation loss is the mean over: held-out clips at fixed times with fixed noise; this rank's part.

    Ranks take equally many (clip, time) pairs of each bucket, so that the mean over ranks is the mean over pairs; where
    a bucket's pairs do not divide, its first ones are taken twice.
    """

    sets: Mapping[Bucket, ClipSet]
    recipe: Recipe
    seed: int
    world: World

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """What the loss takes, batch after batch; those of as many tokens have one size, and so one compiled graph."""
        rank, ranks = self.world.rank, self.world.size
        times = path.validation_times(self.recipe.valid.sampling_steps)
        for bucket, clips in self.sets.items():
            pairs = len(clips.names) * len(times)
            share = np.resize(np.arange(pairs), self._count(bucket) * ranks)[rank::ranks]
            for batch in share.reshape(-1, self._size(bucket)):
                indices, at = np.divmod(batch, len(times))
                samples = clips.read(indices)
                yield samples.mean, self._noise(indices, samples.mean.shape[1:]), times[at], *samples.text

    def _noise(self, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The noise of each clip, the same at all its times: (B, *shape)."""
        return np.stack([normal(np.random.default_rng([self.seed, 0, index, NOISE]), shape) for index in indices])

    def _count(self, bucket: Bucket) -> int:
        """(clip, time) pairs of a bucket that a rank takes."""
        return -(-len(self.sets[bucket].names) * self.recipe.valid.sampling_steps // self.world.size)

    def _size(self, bucket: Bucket) -> int:
        """Samples in a batch: no more than in training, where it fits; they divide each bucket of as many tokens."""
        sizes = self.recipe.dataloader.batch_size
        most = min(VALIDATION_BATCH, sizes.video_batch_size if bucket.frames > 1 else sizes.image_batch_size)
        tokens = visual_tokens(*bucket)
        count = math.gcd(*(self._count(other) for other in self.sets if visual_tokens(*other) == tokens))
        return max(size for size in range(1, max(1, most) + 1) if count % size == 0)


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


def _hide(mask: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A text mask (B, M) without the `hidden` tokens; all of a caption's, where nothing of it would be left."""
    left = mask & ~hidden
    return np.where(left.any(1, keepdims=True), left, mask)
