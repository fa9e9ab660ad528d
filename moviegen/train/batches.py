"""Batches of a training stage: samples of one bucket on each rank, by (seed, step, micro-batch, rank) alone.

Where samples come from is not known here: a `ClipSet` reads those it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moviegen.config import Bucket, ConfigError, Recipe, by_graph, visual_tokens
from moviegen.device.world import World
from moviegen.flow import path
from moviegen.train.loop import Batch
from moviegen.train.turns import Turns

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
        """The micro-batch of this rank; all ranks see the same medium and as many tokens in the same step."""
        number = (step - 1) * self.recipe.train.settings.gradient_accumulation_steps + micro
        rank, (media, turn) = self.world.rank, self._turn(number)
        bucket, indices = self.turns[media](turn)[rank]
        sets, size = self.sets[media], len(indices)
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

    @cached_property
    def sets(self) -> dict[str, Mapping[Bucket, ClipSet]]:
        """What there is of each medium."""
        return {media: sets for media, sets in (("image", self.images), ("video", self.videos)) if sets}

    @cached_property
    def turns(self) -> dict[str, Turns]:
        """The batches of each medium."""
        sizes = self.recipe.dataloader.batch_size
        return {
            media: Turns(
                {bucket: len(clips.names) for bucket, clips in sets.items()},
                sizes.image_batch_size if media == "image" else sizes.video_batch_size,
                self.world.size,
                [self.seed, media == "image", ORDER],
            )
            for media, sets in self.sets.items()
        }

    def times_seen(self) -> list[tuple[Bucket, str, int]]:
        """How often each clip is seen from the first to the last step: its bucket, its name, and that."""
        last = self.recipe.train.steps * self.recipe.train.settings.gradient_accumulation_steps - 1
        media, before = self._turn(last)
        batches = {other: last - before for other in self.sets} | {media: before + 1}
        return [
            (bucket, name, int(times))
            for media, turns in self.turns.items()
            for bucket, counts in turns.times_seen(batches[media]).items()
            for name, times in zip(self.sets[media][bucket].names, counts, strict=True)
        ]

    def graphs(self) -> dict[tuple[int, int], list[Bucket]]:
        """The buckets whose batches share a compiled graph, by samples and tokens."""
        return by_graph({bucket: turns.size for turns in self.turns.values() for bucket in turns.counts})

    def _turn(self, number: int) -> tuple[str, int]:
        """The medium of batch `number`, and how many of its medium came before."""
        if len(self.sets) == 1:
            return next(iter(self.sets)), number
        draws = np.random.default_rng([self.seed, 0, 0, MEDIA]).random(number + 1)  # so many draws are a millisecond
        is_image = draws < self.recipe.dataloader.image_ratio
        return ("image" if is_image[-1] else "video"), int((is_image[:-1] == is_image[-1]).sum())


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

    def __post_init__(self) -> None:
        if not self.sets:
            raise ConfigError("no held-out clip fills a bucket of this stage: there is nothing to validate on")

    def __len__(self) -> int:
        return sum(self._count(bucket) // self._size(bucket) for bucket in self.sets)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """What the loss takes, batch after batch; those of as many tokens have one size, and so one compiled graph."""
        rank, ranks = self.world.rank, self.world.size
        times = path.validation_times(self.recipe.valid.sampling_steps)
        for bucket, clips in self.sets.items():
            for batch in self._pairs(bucket)[rank::ranks].reshape(-1, self._size(bucket)):
                indices, at = np.divmod(batch, len(times))
                samples = clips.read(indices)
                yield samples.mean, self._noise(indices, samples.mean.shape[1:]), times[at], *samples.text

    def counts(self) -> dict[float, float]:
        """How many pairs of each time a rank takes, in the mean over the ranks."""
        times = path.validation_times(self.recipe.valid.sampling_steps)
        taken = np.concatenate([self._pairs(bucket) for bucket in self.sets]) % len(times)
        counts = np.bincount(taken, minlength=len(times)) / self.world.size
        return dict(zip(times.tolist(), counts.tolist(), strict=True))

    def graphs(self) -> dict[tuple[int, int], list[Bucket]]:
        """The buckets whose batches share a compiled graph, by samples and tokens."""
        return by_graph({bucket: self._size(bucket) for bucket in self.sets})

    def _noise(self, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The noise of each clip, the same at all its times: (B, *shape)."""
        return np.stack([normal(np.random.default_rng([self.seed, 0, index, NOISE]), shape) for index in indices])

    def _pairs(self, bucket: Bucket) -> np.ndarray:
        """The (clip, time) pairs of a bucket, numbered, times innermost; the ranks take them in turn."""
        pairs = np.arange(len(self.sets[bucket].names) * self.recipe.valid.sampling_steps)
        return np.resize(pairs, self._count(bucket) * self.world.size)

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
