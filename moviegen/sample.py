"""`python -m moviegen sample`: videos from captions by Euler steps with guidance, then decoding (paper 3.4.2)."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from moviegen import device, flow, runs, schedule, text
from moviegen.config import Params, latent_size
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split, write_rows
from moviegen.data.videos import centre_view, to_uint8, write_video
from moviegen.dit.weights import load_dit
from moviegen.tae.model import Decode
from moviegen.tae.tiling import decode_tiles
from moviegen.tae.weights import load_tae

Velocity = Callable[[np.ndarray, float], np.ndarray]


def euler(x: np.ndarray, velocity: Velocity, times: np.ndarray) -> np.ndarray:
    """Follows dx/dt = velocity(x, t) from times[0] to times[-1], one first-order step between neighbours."""
    for now, then in itertools.pairwise(times):
        x = x + np.float32(then - now) * velocity(x, float(now))
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


def velocity_field(network: GuidedVelocity, embeddings: tuple[np.ndarray, ...]) -> Velocity:
    """The network as a function of (x, t) for one caption and its empty counterpart."""
    held = [ms.Tensor(array) for array in embeddings]

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        return network(ms.Tensor(x), ms.Tensor(np.full(2 * len(x), t, np.float32)), *held).asnumpy()

    return velocity


def noise_for(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The starting point of one prompt; it depends on nothing but the seed."""
    return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)


def chosen_clips(run: runs.Run) -> list[tuple[str, Clip]]:
    """The captions to sample, with the clip each belongs to: of the validation split, then of the training split."""
    data, count = run.upstream("data"), run.params.sample.num_prompts
    splits = (("val", "mixkit_val"), ("train", "mixkit_train"))
    return [(split, clip) for split, name in splits for clip in load_split(data, name)[:count]]


def sample(run: runs.Run) -> None:
    """Samples, decodes and writes each caption's video, and its own clip beside it for comparison."""
    params, settings = run.params, run.params.sample
    dit = load_dit(run.upstream("stage3").folder / "dit.safetensors", params.dit_config(3))
    tae = load_tae(run.upstream("tae-mixkit").folder / "tae.safetensors")
    network, decode = GuidedVelocity(dit, settings.guidance), Decode(tae)
    shape = (tae.config.latent_channels, *latent_size(settings.frames, *settings.size))
    times = schedule.get(settings.schedule, settings.steps)
    metrics, rows, seconds = runs.MetricsWriter(run.metrics_path), [], []
    metrics.drop_after(0)
    clips = chosen_clips(run)
    for index, (split, clip) in enumerate(tqdm(clips, desc="sampling", disable=None)):
        started = time.perf_counter()
        seed = params.seed + index
        embeddings = text.load_embeddings(run.upstream("text"), [clip.caption, ""])
        latent = euler(noise_for(seed, shape), velocity_field(network, embeddings), times)
        pieces = [to_uint8(piece[0]) for piece in decode_tiles(decode, tae.denormalize(latent), settings.frames)]
        generated, reference = f"videos/{index:02d}-generated.mp4", f"videos/{index:02d}-reference.mp4"
        write_video(run.folder / generated, np.concatenate(pieces), settings.fps)
        view = centre_view(clip.path, clip.frames, settings.frames, *settings.size)
        write_video(run.folder / reference, to_uint8(view), settings.fps)
        seconds.append(time.perf_counter() - started)
        metrics.write(kind="clip", step=index + 1, steps=len(clips), seconds=round(seconds[-1], 3))
        rows.append((index, split, clip.caption, seed, generated, reference))
    header = ("index", "split", "caption", "seed", "generated", "reference")
    write_rows(run.folder / "samples.csv", header, rows)
    # The first clip's time holds the compilation, so it says nothing of the others'.
    others = float(np.mean(seconds[1:])) if len(seconds) > 1 else None
    summary = {"clips": len(rows), "first_clip_seconds": seconds[0], "seconds_per_clip": others}
    runs.write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`sample`."""
    device.start(params.seed)
    with runs.record(runs.find(params, "sample")) as run:
        sample(run)
