"""What the weights make of the same captions and noise as training goes on: latents, decoded when it has ended.

`samples/` in a run's folder holds `<update>-<prompt>.npz`, which `python -m moviegen tae decode` reads too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mindspore as ms
import numpy as np

from moviegen.device.collectives import Average
from moviegen.device.world import World
from moviegen.flow.sampler import NotFiniteError, Prompt, Sampler
from moviegen.runs.arrays import save_npz

FOLDER = "samples"  # in a run's


@dataclass(frozen=True)
class SampledLatents:
    """Samples prompts one by one, which take least memory beside what training holds.

    Nothing here draws from what training draws from, and nothing is left in the network: a run with samples has the
    weights of one without.

    Args:
        sampler: of the network that is trained.
        times: of the Euler steps.
        clip: frames of a clip, and how many of them make a second.
    """

    sampler: Sampler
    prompts: Sequence[Prompt]
    times: np.ndarray
    clip: tuple[int, float]
    run: Path
    world: World

    def __call__(self, step: int) -> None:
        """Keeps what the network makes of each prompt after this update and is not there yet; all ranks together.

        They may hold parts of weights and of tokens: each rank asks as often as the others, and rank 0 writes.
        """
        for prompt in self._missing(step):
            try:
                (latent,) = self.sampler([prompt], self.times)
            except NotFiniteError as error:  # of a sample alone, on all ranks: the losses say whether training diverges
                warnings.warn(f"no sample of {prompt.caption!r} after update {step}: {error}", stacklevel=2)
                continue
            if self.world.is_main:
                frames, fps = self.clip
                save_npz(self.path(step, prompt), latent_mean=latent, frames=frames, fps=fps)

    def path(self, step: int, prompt: Prompt) -> Path:
        """Where a latent is kept."""
        return self.run / FOLDER / f"{step:06d}-{prompt.index:02d}.npz"

    def kept(self) -> Iterator[tuple[int, Prompt, Path]]:
        """Those that are there, update by update."""
        steps = sorted({int(path.name.partition("-")[0]) for path in (self.run / FOLDER).glob("*-*.npz")})
        for step in steps:
            for prompt in self.prompts:
                if (path := self.path(step, prompt)).is_file():
                    yield step, prompt, path

    def _missing(self, step: int) -> list[Prompt]:
        """What rank 0 does not find, told to all: a rank that sees the folder later must not ask for other prompts."""
        is_there = [self.world.is_main and self.path(step, prompt).is_file() for prompt in self.prompts]
        known = self._average(ms.Tensor(np.array(is_there, np.float32))).asnumpy()
        return [prompt for prompt, there in zip(self.prompts, known, strict=True) if not there]

    @cached_property
    def _average(self) -> Average:
        return Average(self.world.size)
