"""`python -m moviegen sample`: videos from captions by Euler steps with guidance, then decoding (paper 3.4.2).

A clip's noise follows from its own seed alone, so the same caption and seed give the same clip whatever else is
sampled: to the last bit with `sample.batch_size` 1. In larger batches the order of a sum may depend on the batch's size
and on the clip's place in it, which shows in the last digits of float32.

`moviegen/generate.py` does the same for prompts of one's own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from moviegen import device, flow, runs, schedule, text
from moviegen.config import ConfigError, Params, check_tables, latent_size
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split, write_rows
from moviegen.data.videos import centre_view, to_uint8, write_video
from moviegen.dit.model import DiT
from moviegen.dit.weights import for_sampling, load_dit
from moviegen.tae.model import TAE, Decode
from moviegen.tae.tiling import decode_tiles
from moviegen.tae.weights import load_tae

Velocity = Callable[[np.ndarray, float], np.ndarray]
# UL2, MetaCLIP and ByT5 (B, L, width) each, and the tokens that are not padding (B, sum of L)
Embeddings = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Embed = Callable[[list[str]], Embeddings]


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


def euler(
    x: np.ndarray, velocity: Velocity, times: np.ndarray, on_step: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Follows dx/dt = velocity(x, t) from times[0] to times[-1], one first-order step between neighbours."""
    for now, then in itertools.pairwise(times):
        x = x + np.float32(then - now) * velocity(x, float(now))
        on_step()
    return x


class GuidedVelocity(nn.Cell):
    """v_uncond + guidance * (v_cond - v_uncond), both from one batched call of the network."""

    def __init__(self, network: nn.Cell, guidance: float) -> None:
        super().__init__()
        self.network, self.guidance = network, guidance

    def construct(
        self, x: ms.Tensor, t: ms.Tensor, ul2: ms.Tensor, metaclip: ms.Tensor, byt5: ms.Tensor, keep: ms.Tensor
    ) -> ms.Tensor:
        """x (B, C, T', H', W'), t (2B,), text (2B, L, width): the captions' first, then the empty ones'."""
        velocity = self.network(ops.concat((x, x), 0), flow.timestep(t), ul2, metaclip, byt5, keep)
        conditioned, unconditioned = velocity[: x.shape[0]], velocity[x.shape[0] :]
        return unconditioned + self.guidance * (conditioned - unconditioned)


def velocity_field(network: GuidedVelocity, embeddings: Embeddings) -> Velocity:
    """The network as a function of (x, t) for some captions and as many empty ones."""
    held = [ms.Tensor(array) for array in embeddings]

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        return network(ms.Tensor(x), ms.Tensor(np.full(2 * len(x), t, np.float32)), *held).asnumpy()

    return velocity


def noise_for(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The starting point of one prompt; it depends on nothing but the seed."""
    return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)


def load_trained(path: Path, params: Params, stage: int) -> DiT:
    """A stage's transformer with a file's weights, in the arithmetic that the stage is trained in; see `load_dit`.

    Raises:
        ConfigError: this device has no such arithmetic.
    """
    try:
        dtype = device.compute_dtype(params.recipes[stage].train.settings.dtype)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return load_dit(path, params.dit_config(stage), dtype)


class Sampler:
    """Latents of prompts from a transformer.

    Args:
        embed: captions to their embeddings.
        size: (T, H, W) of what is sampled, in frames and pixels; T = 1 is an image.

    Raises:
        ConfigError: the transformer's position tables are too small for it.
    """

    def __init__(self, dit: DiT, embed: Embed, guidance: float, size: tuple[int, int, int]) -> None:
        check_tables("sample", size[0], size[1:], dit.config.max_size, owner="the transformer's file")
        self.network, self.embed = GuidedVelocity(dit, guidance), embed
        self.shape = (dit.config.latent_channels, *latent_size(*size))

    def noise(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """Where the prompts start: (B, C, T', H', W')."""
        return np.concatenate([noise_for(prompt.seed, self.shape) for prompt in prompts])

    def velocity(self, prompts: Sequence[Prompt]) -> Velocity:
        """Their guided velocity."""
        embeddings = self.embed([prompt.caption for prompt in prompts] + [""] * len(prompts))
        return velocity_field(self.network, embeddings)

    def __call__(
        self, prompts: Sequence[Prompt], times: np.ndarray, on_step: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """Normalised latents of prompts sampled together: (B, C, T', H', W')."""
        return euler(self.noise(prompts), self.velocity(prompts), times, on_step)


def decode_clip(decode: Decode, tae: TAE, latent: np.ndarray, frames: int) -> np.ndarray:
    """A normalised latent (C, T', H', W') as uint8 (frames, H, W, 3)."""
    pieces = decode_tiles(decode, tae.denormalize(latent[None]), frames)
    return np.concatenate([to_uint8(piece[0]) for piece in pieces])


def chosen_clips(run: runs.Run) -> list[tuple[str, Clip]]:
    """The captions to sample, with the clip each belongs to: of the validation split, then of the training split."""
    data, count = run.upstream("data"), run.params.sample.num_prompts
    splits = (("val", "mixkit_val"), ("train", "mixkit_train"))
    return [(split, clip) for split, name in splits for clip in load_split(data, name)[:count]]


def sample(run: runs.Run) -> None:
    """Samples, decodes and writes each caption's video, and its own clip beside it for comparison."""
    params, settings = run.params, run.params.sample
    dit = load_trained(for_sampling(run.upstream("stage3").folder), params, 3)
    tae = load_tae(run.upstream("tae-mixkit").folder / "tae.safetensors")
    embed = functools.partial(text.load_embeddings, run.upstream("text"))
    sampler = Sampler(dit, embed, settings.guidance, (settings.frames, *settings.size))
    decode, times = Decode(tae), schedule.get(settings.schedule, settings.steps)
    metrics, rows, seconds = runs.MetricsWriter(run.metrics_path), [], []
    metrics.drop_after(0)
    clips = chosen_clips(run)
    todo = batches(numbered([clip.caption for _, clip in clips], params.seed), settings.batch_size)
    bar = tqdm(total=len(todo) * settings.steps, desc="sampling", unit="step", disable=None)
    for batch in todo:
        started = time.perf_counter()
        latents = sampler(batch, times, bar.update)
        shared = (time.perf_counter() - started) / len(batch)
        for prompt, latent in zip(batch, latents, strict=True):
            started = time.perf_counter()
            split, clip = clips[prompt.index]
            generated, reference = (f"videos/{prompt.index:02d}-{kind}.mp4" for kind in ("generated", "reference"))
            write_video(run.folder / generated, decode_clip(decode, tae, latent, settings.frames), settings.fps)
            seconds.append(shared + time.perf_counter() - started)
            metrics.write(kind="clip", step=prompt.index + 1, steps=len(clips), seconds=round(seconds[-1], 3))
            shown = min(clip.frames, settings.frames)
            view = centre_view(clip.path, clip.frames, shown, *settings.size)
            write_video(run.folder / reference, to_uint8(view), settings.fps)
            rows.append((prompt.index, split, clip.caption, prompt.seed, generated, reference))
    bar.close()
    header = ("index", "split", "caption", "seed", "generated", "reference")
    write_rows(run.folder / "samples.csv", header, rows)
    # The first batch's time holds the compilation, and a shorter last one's another: neither is how long a clip takes.
    steady = seconds[settings.batch_size : len(seconds) // settings.batch_size * settings.batch_size]
    per_clip = float(np.mean(steady)) if steady else None
    summary = {"clips": len(rows), "first_clip_seconds": seconds[0], "seconds_per_clip": per_clip}
    runs.write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`sample`."""
    device.start(params.seed, params.launch)
    with runs.record(runs.find(params, "sample")) as run:
        sample(run)
