"""What samples prompts and decodes them, of the report's captions and of one's own, and what it says as it goes on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from moviegen import runs
from moviegen.config import TEMPORAL_COMPRESSION, Sample, Tiling
from moviegen.data.formats import clip_writer
from moviegen.data.pixels import to_uint8
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow import schedule
from moviegen.flow.sampler import Embed, Prompt, Sampler, filled
from moviegen.parallel.mesh import Mesh
from moviegen.runs.arrays import save_npz
from moviegen.tae.decoding import LatentDecoder

STAGE = 3  # whose transformer samples

OnStep = Callable[[int, int], None]


class LatentPipeline:
    """Prompts to latents.

    Args:
        mesh: of the ranks that the transformer is divided over, or that take batches in turn; None: one rank.
    """

    def __init__(self, transformer: DiT, settings: Sample, embed: Embed, mesh: Mesh | None = None) -> None:
        self.settings, self.channels, self.mesh = settings, transformer.config.latent_channels, mesh or Mesh()
        size = (settings.frames, *settings.size)
        self.sampler = Sampler(transformer, embed, settings.guidance, size, settings.guidance_gate)

    def latents(
        self, prompts: list[list[Prompt]], quiet: bool | None, on_step: OnStep = lambda done, total: None
    ) -> Iterator[tuple[Prompt, np.ndarray, float]]:
        """Each prompt's latent (C, T', H', W') of this rank's batches, and its share of the seconds of its batch.

        Args:
            prompts: the batches of all ranks.
            on_step: told how many of this rank's Euler steps are done, and of how many.
        """
        times = schedule.get(self.settings.schedule, self.settings.steps)
        in_step = self.settings.exchanges(self.mesh.shards)
        turns = list(self.mesh.turns(prompts, in_step))
        with tqdm(total=len(turns) * self.settings.steps, desc="sampling", unit="step", disable=quiet) as bar:
            done = itertools.count(1)

            def step() -> None:
                bar.update()
                on_step(next(done), len(turns) * self.settings.steps)

            for batch, is_own in turns:
                started = time.perf_counter()
                latents = self.sampler(filled(batch, self.settings.batch_size) if in_step else batch, times, step)
                seconds = (time.perf_counter() - started) / len(batch)
                if is_own:
                    yield from ((prompt, latent, seconds) for prompt, latent in zip(batch, latents, strict=False))

    def write_latent(self, path: Path, latent: np.ndarray, **facts: ArrayLike) -> None:
        """Writes a latent (C, T', H', W') as `tae decode` reads it, and facts of it."""
        save_npz(path, latent_mean=latent, frames=self.settings.frames, fps=self.settings.fps, **facts)


class Pipeline(LatentPipeline):
    """Prompts to latents to clips, which the autoencoder in the file `tae` decodes.

    Raises:
        ConfigError: the file is damaged, or decodes other latents than are sampled.
    """

    def __init__(
        self, transformer: DiT, settings: Sample, tae: Path, embed: Embed, tiling: Tiling, mesh: Mesh | None = None
    ) -> None:
        super().__init__(transformer, settings, embed, mesh)
        self.decode = LatentDecoder(tae, self.channels, tiling)

    def write(self, path: Path, latent: np.ndarray) -> None:
        """Decodes a latent (C, T', H', W') and writes its clip."""
        clip_writer(path, self.settings.frames)(path, self.clip(latent), self.settings.fps)

    def clip(self, latent: np.ndarray) -> Iterator[np.ndarray]:
        """The frames of a latent (C, T', H', W') or of a part of one, uint8 (H, W, 3) each, as they are decoded."""
        frames = min(self.settings.frames, TEMPORAL_COMPRESSION * latent.shape[1])
        return (frame for piece in self.decode(latent, frames) for frame in to_uint8(piece))


def missing(prompts: list[list[Prompt]], is_there: Callable[[Prompt], bool]) -> list[list[Prompt]]:
    """The batches of which something is not there yet: each whole, as in other company last digits may differ."""
    return [batch for batch in prompts if not all(map(is_there, batch))]


class Progress:
    """What rank 0 writes of its own work: that it begins, and compiles; a line a step, a clip, a picture of a way."""

    def __init__(self, metrics: Path, world: World, clips: int, denoising: int = 0) -> None:
        self.clips, self.sampled, self.denoising, self.denoised = clips, 0, denoising, 0
        self.metrics = runs.MetricsWriter(metrics) if world.is_main else None
        self.quiet = None if world.is_main else True
        if self.metrics:
            self.metrics.drop_after(-1)
            self.metrics.write(kind="state", step=0)

    def step(self, done: int, steps: int) -> None:
        """So many of its steps are done."""
        self.sampled = steps
        if self.metrics:
            self.metrics.write(kind="step", step=done, steps=self.total)

    def clip(self, done: int, seconds: float) -> None:
        """So many of its clips are written, the last in so many seconds."""
        if self.metrics:
            self.metrics.write(kind="clip", step=self.sampled + done, steps=self.total, seconds=round(seconds, 3))

    def way(self) -> None:
        """One more of its steps or pictures of the ways is done."""
        self.denoised += 1
        if self.metrics:
            self.metrics.write(kind="denoising", step=self.sampled + self.clips + self.denoised, steps=self.total)

    @property
    def total(self) -> int:
        """Of all there is to do, so far as it is known."""
        return self.sampled + self.clips + self.denoising
