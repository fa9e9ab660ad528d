"""Sampling (paper 3.4.2): Euler steps along the guided velocity, from a prompt's noise to its latent.

The network is asked for both velocities of guidance in one batch; for the one of them that guidance 1 or 0 leaves, or
that a step takes which reuses the last difference of the two, it is asked alone.

A latent follows from its prompt's own seed alone, so the same caption and seed give the same clip whatever else is
sampled: to the last bit where prompts are sampled one by one. In larger batches the order of a sum may depend on the
batch's size and on the prompt's place in it, which shows in the last digits of float32.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen.config import ConfigError, check_tables, latent_size
from moviegen.flow.path import timestep

Velocity = Callable[[np.ndarray, float], np.ndarray]
Embed = Callable[[list[str]], tuple[np.ndarray, ...]]  # captions -> the text that the network takes


@dataclass(frozen=True)
class Prompt:
    """A caption, its place in the list of captions, and the seed of its noise."""

    index: int
    caption: str
    seed: int


def numbered(captions: Sequence[str], seed: int) -> list[Prompt]:
    """Captions with a seed each: the first one's is `seed`, and so on upwards."""
    return [Prompt(index, caption, seed + index) for index, caption in enumerate(captions)]


def batches(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Neighbours, `size` at a time; the last batch may be shorter."""
    return [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]


def filled(batch: Sequence[Prompt], size: int) -> list[Prompt]:
    """A batch of just `size` prompts: a shorter one has its last prompt again."""
    return [*batch, *[batch[-1]] * (size - len(batch))]


# 3.4.2: the first-order solver
class NotFiniteError(ConfigError):
    """Values of a latent on its way are not finite."""


def euler(
    x: np.ndarray, velocity: Velocity, times: np.ndarray, on_step: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Follows dx/dt = velocity(x, t) from times[0] to times[-1], one first-order step between neighbours.

    Raises:
        NotFiniteError: the velocity is not; no distance from such a latent means anything, and it decodes to black.
    """
    for now, then in itertools.pairwise(times):
        x = x + np.float32(then - now) * velocity(x, float(now))
        if not np.isfinite(x).all():
            raise NotFiniteError(
                f"the latent at t = {then:.4g} has values that are not finite: the transformer's weights have diverged "
                f"or are damaged, or the guidance is too high; train again, name other weights or lower it"
            )
        on_step()
    return x


class VelocityCell(nn.Cell):
    """The network at flow times: x (B, ...), t (B,) in [0, 1], the rest as the network takes it -> like x."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.network = network

    def construct(self, x: ms.Tensor, t: ms.Tensor, *rest: ms.Tensor) -> ms.Tensor:
        return self.network(x, timestep(t), *rest)


def asked_texts(captions: Sequence[str], guidance: float) -> list[str]:
    """What guidance asks the network for: the captions, the empty one for each, or first the former, then the latter.

    At guidance 1 nothing of the velocity without text is left, at 0 nothing of the other.
    """
    conditioned, unconditioned = list(captions), [""] * len(captions)
    return conditioned if guidance == 1 else unconditioned if guidance == 0 else conditioned + unconditioned


# 3.4.2: classifier-free guidance (Ho and Salimans 2022)
class GuidedVelocity:
    """v_uncond + guidance * (v_cond - v_uncond) of (x, t), as euler's steps ask for it one after the other.

    Args:
        network: see `VelocityCell`.
        inputs: the rest of what the network takes, of `asked_texts`; those in `shared` are of all samples together.
        full_steps: after so many the difference of the two velocities is that of the last of them, and the network is
            asked with the captions alone; None: it is always asked for both.
    """

    def __init__(
        self,
        network: nn.Cell,
        guidance: float,
        inputs: Sequence[np.ndarray],
        shared: Sequence[np.ndarray] = (),
        full_steps: int | None = None,
    ) -> None:
        self.network, self.guidance, self.full_steps, self.steps = network, np.float32(guidance), full_steps, 0
        self.is_guided = guidance not in (0, 1)
        self.difference = np.zeros(())
        self.shared = [ms.Tensor(array) for array in shared]
        self.inputs = [ms.Tensor(array) for array in inputs]
        self.conditioned: list[ms.Tensor] = []
        if self.is_guided and full_steps is not None:
            self.conditioned = [ms.Tensor(array[: len(array) // 2]) for array in inputs]

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        self.steps += 1
        if not self.is_guided:
            return self._asked(x, t, self.inputs)
        if self.full_steps is not None and self.steps > self.full_steps:
            return self._asked(x, t, self.conditioned) + (self.guidance - 1) * self.difference
        velocity = self._asked(np.concatenate((x, x)), t, self.inputs)
        conditioned, unconditioned = velocity[: len(x)], velocity[len(x) :]
        self.difference = conditioned - unconditioned
        return unconditioned + self.guidance * self.difference

    def _asked(self, x: np.ndarray, t: float, inputs: Sequence[ms.Tensor]) -> np.ndarray:
        times = ms.Tensor(np.full(len(x), t, np.float32))
        return self.network(ms.Tensor(x), times, *self.shared, *inputs).asnumpy()


def noise_for(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The starting point of one prompt; it depends on nothing but the seed."""
    return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)


class Sampler:
    """Latents of prompts from a transformer.

    Args:
        dit: with its `config`, and itself `by_tokens`.
        embed: captions to their embeddings.
        size: (T, H, W) of what is sampled, in frames and pixels; T = 1 is an image.
        gate: share of the steps after which guidance reuses its last difference; 1: it never does.

    Raises:
        ConfigError: the transformer's position tables are too small for it.
    """

    def __init__(
        self, dit: nn.Cell, embed: Embed, guidance: float, size: tuple[int, int, int], gate: float = 1.0
    ) -> None:
        self.dit, self.embed, self.guidance, self.gate = dit.by_tokens(), embed, guidance, gate
        self.config, self.network = dit.config, VelocityCell(self.dit)
        self._set_size(size)

    def at(self, size: tuple[int, int, int]) -> Sampler:
        """The same at another size; what has as many tokens needs no other compiled graph."""
        other = copy.copy(self)
        other._set_size(size)
        return other

    def _set_size(self, size: tuple[int, int, int]) -> None:
        check_tables("sample", size[0], size[1:], self.config.max_size, owner="the transformer's file")
        self.shape = (self.config.latent_channels, *latent_size(*size))

    def noise(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """Where the prompts start: (B, C, T', H', W')."""
        return np.concatenate([noise_for(prompt.seed, self.shape) for prompt in prompts])

    def velocity(self, prompts: Sequence[Prompt], full_steps: int | None = None) -> Velocity:
        """Their guided velocity. It is of one solution: see `GuidedVelocity`."""
        embeddings = self.embed(asked_texts([prompt.caption for prompt in prompts], self.guidance))
        places = self.dit.places(self.shape)
        of_tokens = GuidedVelocity(self.network, self.guidance, embeddings, (places,), full_steps)

        def velocity(x: np.ndarray, t: float) -> np.ndarray:
            return self.dit.latent(of_tokens(self.dit.tokens(x), t), x.shape)

        return velocity

    def __call__(
        self, prompts: Sequence[Prompt], times: np.ndarray, on_step: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """Normalised latents of prompts sampled together: (B, C, T', H', W')."""
        velocity = self.velocity(prompts, full_steps(len(times) - 1, self.gate))
        return euler(self.noise(prompts), velocity, times, on_step)


def full_steps(steps: int, gate: float) -> int | None:
    """How many of so many steps ask for both velocities: at least the first; None: all."""
    return max(1, math.ceil(gate * steps)) if gate < 1 else None
