"""Views of clips for the autoencoder: random crops to train on, fixed ones to validate on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from moviegen.config import TAEStage
from moviegen.data.clips import Clip, frames_of
from moviegen.data.datasets import batch_indices
from moviegen.data.pixels import clip_indices, cover, random_resized_crop, to_float
from moviegen.data.quarantine import Quarantine

VALIDATION_CLIPS = 16
T = TypeVar("T")


@dataclass(frozen=True)
class RandomCrops:
    """Random crops of random frames.

    All follows from (seed, step, micro-batch, rank) and from which files are damaged. All ranks see the same medium in
    the same step.
    """

    clips: list[Clip]
    stage: TAEStage
    seed: int
    rank: int
    ranks: int
    quarantine: Quarantine

    def __call__(self, step: int, micro: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...]]:
        """One micro-batch of this rank: float32 (B, 3, T, H, W) in [-1, 1], T = 1 for images; and the clips' names."""
        frames = 1 if self.sees_images(step, micro) else self.stage.frames
        number = (step - 1) * self.stage.settings.gradient_accumulation_steps + micro
        indices = batch_indices(len(self.clips), self.stage.batch_size, number, self.seed, self.rank, self.ranks)
        read = [self.quarantine.read(self.clips, i, lambda clip: self._crop(clip, frames, rng)) for i in indices]
        return np.stack([view for _, view in read]), tuple(clip.path.name for clip, _ in read)

    def sees_images(self, step: int, micro: int) -> bool:
        """Whether a micro-batch is of single frames."""
        draw = np.random.default_rng([self.seed, step, micro]).random
        return self.stage.frames == 1 or draw() < self.stage.image_ratio

    def _crop(self, clip: Clip, frames: int, rng: np.random.Generator) -> np.ndarray:
        indices = clip_indices(clip.frames, frames, rng=rng)
        return random_resized_crop(frames_of(clip, indices), *self.stage.size, rng)


def centre_frames(clip: Clip, frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """The fixed view of a clip: its centre `frames`, resized and centre-cropped, uint8 (height, width, 3) each."""
    return cover(frames_of(clip, clip_indices(clip.frames, frames)), height, width)


def centre_view(clip: Clip, frames: int, height: int, width: int) -> np.ndarray:
    """`centre_frames` at once.

    Returns:
        float32 (3, frames, height, width) in [-1, 1].
    """
    return to_float(list(centre_frames(clip, frames, height, width)))


def centre_views(clips: list[Clip], frames: int, size: tuple[int, int], quarantine: Quarantine) -> np.ndarray:
    """The fixed views of clips: float32 (B, 3, T, H, W) in [-1, 1]."""

    def view(clip: Clip) -> np.ndarray:
        return centre_view(clip, frames, *size)

    return np.stack([quarantine.read(clips, index, view)[1] for index in range(len(clips))])


def spread(items: Sequence[T], most: int = VALIDATION_CLIPS) -> list[T]:
    """At most so many of them, evenly spread over all, always the same."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]
