"""What TAE training sees: random crops of clips, and fixed views of held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moviegen.config import ConfigError, TAEConfig, TAEStage, latent_size
from moviegen.data import datasets, videos
from moviegen.data.datasets import Clip
from moviegen.data.quarantine import Quarantine
from moviegen.device.collectives import World
from moviegen.train.loop import Batch

VALIDATION_CLIPS = 16


@dataclass(frozen=True)
class Batches:
    """Random crops of random frames, and the noise that samples their latents.

    All follows from (seed, step, micro-batch, rank) and from which files are damaged. All ranks see the same medium in
    the same step.
    """

    clips: list[Clip]
    stage: TAEStage
    config: TAEConfig
    seed: int
    world: World
    quarantine: Quarantine

    def __call__(self, step: int, micro: int) -> Batch:
        """One micro-batch of this rank."""
        is_image = self.stage.frames == 1 or self._shared(step, micro).random() < self.stage.image_ratio
        frames = 1 if is_image else self.stage.frames
        rng = np.random.default_rng([self.seed, step, micro, 1 + self.world.rank])
        indices = datasets.batch_indices(
            len(self.clips), self.stage.batch_size, step - 1, self.seed, self.world.rank, self.world.size
        )
        read = [self.quarantine.read(self.clips, i, lambda clip: self._crop(clip, frames, rng)) for i in indices]
        video = np.stack([view for _, view in read])
        noise = rng.standard_normal(latent_shape(video.shape, self.config), np.float32)
        return Batch((video, noise), "image" if is_image else "video", tuple(clip.path.name for clip, _ in read))

    def _shared(self, step: int, micro: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step, micro])

    def _crop(self, clip: Clip, frames: int, rng: np.random.Generator) -> np.ndarray:
        indices = videos.clip_indices(clip.frames, frames, rng=rng)
        return videos.random_resized_crop(videos.read_frames(clip.path, indices), *self.stage.size, rng)


def latent_shape(video: tuple[int, ...], config: TAEConfig) -> tuple[int, ...]:
    """(B, 3, T, H, W) -> (B, C, T', H', W')."""
    batch, _, frames, height, width = video
    length, rows, columns = latent_size(frames, height, width)
    return batch, config.latent_channels, length if config.is_temporal else frames, rows, columns


def centre_views(clips: list[Clip], frames: int, size: tuple[int, int], quarantine: Quarantine) -> np.ndarray:
    """The fixed views of clips: float32 (B, 3, T, H, W) in [-1, 1]."""

    def view(clip: Clip) -> np.ndarray:
        return videos.centre_view(clip.path, clip.frames, frames, *size)

    return np.stack([quarantine.read(clips, index, view)[1] for index in range(len(clips))])


def some(clips: list[Clip]) -> list[Clip]:
    """At most about VALIDATION_CLIPS of them, evenly spread, always the same."""
    return clips[:: max(1, len(clips) // VALIDATION_CLIPS)][:VALIDATION_CLIPS]


def check_enough(clips: list[Clip], world: World, what: str) -> None:
    """Refuses fewer clips than workers.

    Raises:
        ConfigError: some worker would have nothing to do.
    """
    if len(clips) < world.size:
        raise ConfigError(
            f"{len(clips)} {what} clips for {world.size} workers: start at most {len(clips)} (launch.worker_num), or "
            f"give more clips"
        )
