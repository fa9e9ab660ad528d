"""Sampling (paper 3.4.2): Euler steps along the guided velocity, from a prompt's noise to its latent.

A latent follows from its prompt's own seed alone, so the same caption and seed give the same clip whatever else is
sampled: to the last bit where prompts are sampled one by one. In larger batches the order of a sum may depend on the
batch's size and on the prompt's place in it, which shows in the last digits of float32.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

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


# 3.4.2: the first-order solver
def euler(
    x: np.ndarray, velocity: Velocity, times: np.ndarray, on_step: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Follows dx/dt = velocity(x, t) from times[0] to times[-1], one first-order step between neighbours.

    Raises:
        ConfigError: the velocity is not finite; no distance from such a latent means anything, and it decodes to black.
    """
    for now, then in itertools.pairwise(times):
        x = x + np.float32(then - now) * velocity(x, float(now))
        if not np.isfinite(x).all():
            raise ConfigError(
                f"the latent at t = {then:.4g} has values that are not finite: the transformer's weights have diverged "
                f"or are damaged, or the guidance is too high; train again, name other weights or lower it"
            )
        on_step()
    return x


# 3.4.2: classifier-free guidance (Ho and Salimans 2022)
class GuidedVelocity(nn.Cell):
    """v_uncond + guidance * (v_cond - v_uncond), both from one batched call of the network."""

    def __init__(self, network: nn.Cell, guidance: float) -> None:
        super().__init__()
        self.network, self.guidance = network, guidance

    def construct(self, x: ms.Tensor, t: ms.Tensor, *rest: ms.Tensor) -> ms.Tensor:
        """x (B, ...), t (2B,), the rest as the network takes it: text of 2B captions, the prompts' before the empty."""
        velocity = self.network(ops.concat((x, x), 0), timestep(t), *rest)
        conditioned, unconditioned = velocity[: x.shape[0]], velocity[x.shape[0] :]
        return unconditioned + self.guidance * (conditioned - unconditioned)


def velocity_field(network: GuidedVelocity, inputs: Sequence[np.ndarray]) -> Velocity:
    """The network as a function of (x, t); `inputs` are the rest of what it takes."""
    rest = [ms.Tensor(array) for array in inputs]

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        return network(ms.Tensor(x), ms.Tensor(np.full(2 * len(x), t, np.float32)), *rest).asnumpy()

    return velocity


def noise_for(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The starting point of one prompt; it depends on nothing but the seed."""
    return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)


class Sampler:
    """Latents of prompts from a transformer.

    Args:
        dit: with its `config`, and itself `by_tokens`.
        embed: captions to their embeddings.
        size: (T, H, W) of what is sampled, in frames and pixels; T = 1 is an image.

    Raises:
        ConfigError: the transformer's position tables are too small for it.
    """

    def __init__(self, dit: nn.Cell, embed: Embed, guidance: float, size: tuple[int, int, int]) -> None:
        self.dit, self.embed = dit.by_tokens(), embed
        self.config, self.network = dit.config, GuidedVelocity(self.dit, guidance)
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

    def velocity(self, prompts: Sequence[Prompt]) -> Velocity:
        """Their guided velocity."""
        embeddings = self.embed([prompt.caption for prompt in prompts] + [""] * len(prompts))
        of_tokens = velocity_field(self.network, (self.dit.places(self.shape), *embeddings))

        def velocity(x: np.ndarray, t: float) -> np.ndarray:
            return self.dit.latent(of_tokens(self.dit.tokens(x), t), x.shape)

        return velocity

    def __call__(
        self, prompts: Sequence[Prompt], times: np.ndarray, on_step: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """Normalised latents of prompts sampled together: (B, C, T', H', W')."""
        return euler(self.noise(prompts), self.velocity(prompts), times, on_step)
