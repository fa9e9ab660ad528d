"""`python -m moviegen train --stage 1|2|3`: one stage of the transformer, in one process or under `msrun`.

Stage 1 sees images; stage 2 images and videos, with the spatial tables grown 2x and a temporal one added; stage 3 the
same at three times the resolution, with the spatial tables grown 3x. Each starts from the one before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen import device, flow, runs, text
from moviegen.config import ConfigError, Params, Recipe, from_root, weights_file
from moviegen.data.datasets import Clip, batch_indices
from moviegen.data.prepare import data_folder, load_split
from moviegen.device.collectives import World, barrier, join_world
from moviegen.dit.model import DiT
from moviegen.dit.weights import load_dit, save_dit
from moviegen.precompute import View, check_origin, latent_file, load_latent
from moviegen.train.loop import Batch, Schedule, Trainer

WEIGHTS = "dit.safetensors"


@dataclass(frozen=True)
class LatentSet:
    """Latents of one view of some clips, and their captions' embeddings.

    Args:
        mean, std: (n, C, T', H', W').
        ul2, metaclip, byt5: (n, L, width); keep (n, sum of L).
    """

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    ul2: np.ndarray
    metaclip: np.ndarray
    byt5: np.ndarray
    keep: np.ndarray

    @property
    def text(self) -> tuple[np.ndarray, ...]:
        """What the network takes besides latent and time."""
        return self.ul2, self.metaclip, self.byt5, self.keep


def latents_folder(run: runs.Run, stage: int) -> Path:
    """Where this stage's latents lie, once it is sure that this report's TAE made them.

    Raises:
        ConfigError: another TAE did, or there are none.
    """
    named = run.params.recipes[stage].dataset.tae_latent_folder
    folder = from_root(named) if named else run.upstream("latents").folder
    check_origin(folder, run.upstream("tae-mixkit").folder / "tae.safetensors")
    return folder


def load_set(run: runs.Run, folder: Path, clips: list[Clip], view: View) -> LatentSet:
    """Reads the caches of some clips; a clip that was set aside when they were made is left out.

    Raises:
        ConfigError: `folder` has no latent of this view of any of them.
    """
    root = data_folder(run.params)
    files = {clip: path for clip in clips if (path := latent_file(folder, view, clip, root)).is_file()}
    if not files:
        raise ConfigError(f"{folder} has no latents of {'x'.join(map(str, view))} for any of {len(clips)} clips")
    mean, std = (np.stack(arrays) for arrays in zip(*map(load_latent, files.values()), strict=True))
    embeddings = text.load_embeddings(run.upstream("text"), [clip.caption for clip in files])
    return LatentSet(tuple(clip.path.name for clip in files), mean, std, *embeddings)


@dataclass(frozen=True)
class Batches:
    """Training batches that follow from (seed, step, micro-batch, rank) alone.

    Args:
        images, videos: what to draw from; no videos in a stage of images.
        empty: the empty caption's embeddings, which replace a dropped caption's.
    """

    images: LatentSet
    videos: LatentSet | None
    empty: tuple[np.ndarray, ...]
    recipe: Recipe
    seed: int
    world: World

    def __call__(self, step: int, micro: int) -> Batch:
        """The micro-batch of this rank; all ranks see the same medium in the same step."""
        number = (step - 1) * self.recipe.train.settings.gradient_accumulation_steps + micro
        sizes, image_ratio = self.recipe.dataloader.batch_size, self.recipe.dataloader.image_ratio
        is_image = self.videos is None or np.random.default_rng([self.seed, number]).random() < image_ratio
        chosen, size = (self.images, sizes.image_batch_size) if is_image else (self.videos, sizes.video_batch_size)
        indices = batch_indices(len(chosen.names), size, number, self.seed, self.world.rank, self.world.size)
        rng = np.random.default_rng([self.seed, number, 1 + self.world.rank])
        x_1 = chosen.mean[indices] + chosen.std[indices] * _normal(rng, chosen.mean[indices].shape)
        captions = _drop(chosen.text, self.empty, indices, rng.random(size) < self.recipe.dataset.text_drop_prob)
        inputs = (x_1, _normal(rng, x_1.shape), flow.logit_normal(rng, size), *captions)
        return Batch(inputs, "image" if is_image else "video", tuple(chosen.names[i] for i in indices))


def validation(loss: nn.Cell, held_out: LatentSet, recipe: Recipe, seed: int, world: World) -> Callable:
    """The loss of held-out clips at fixed times with fixed noise; this rank's share of (clip, time) pairs.

    Ranks take equal shares, so that the mean over ranks is the mean over pairs; a remainder is left out.
    """
    times = flow.validation_times(recipe.valid.sampling_steps)
    pairs = [(clip, time) for clip in range(len(held_out.names)) for time in range(len(times))]
    pairs = pairs[world.rank : len(pairs) // world.size * world.size : world.size]
    noise = _normal(np.random.default_rng([seed, 0]), held_out.mean.shape)
    size = max(n for n in range(1, 17) if len(pairs) % n == 0)

    def validate() -> Mapping[str, float]:
        losses = []
        for start in range(0, len(pairs), size):
            clips, at = (list(column) for column in zip(*pairs[start : start + size], strict=True))
            inputs = (held_out.mean[clips], noise[clips], times[at], *(array[clips] for array in held_out.text))
            losses.append(float(loss(*(ms.Tensor(array) for array in inputs))))
        return {"loss": float(np.mean(losses))}

    return validate


def check_supported(recipe: Recipe) -> None:
    """Refuses what a recipe may name and this version cannot run.

    Raises:
        ConfigError: names the parameter and the value that works.
    """
    wanted = {
        "train.settings.zero_stage": (recipe.train.settings.zero_stage, 0),
        "train.sequence_parallel.shards": (recipe.train.sequence_parallel.shards, 1),
        "model.recompute_every_nth_block": (recipe.model.recompute_every_nth_block, 0),
    }
    for name, (value, works) in wanted.items():
        if value != works:
            raise ConfigError(f"{name} = {value} is planned and not implemented yet: set it to {works}")


def starting_weights(run: runs.Run, stage: int) -> Path | None:
    """The named checkpoint, or the previous stage's; None where stage 1 starts from nothing."""
    named = run.params.recipes[stage].model.pretrained_model_path
    if named:
        return weights_file("model.pretrained_model_path", named)
    return run.upstream(f"stage{stage - 1}").folder / WEIGHTS if stage > 1 else None


def train(run: runs.Run, stage: int, world: World) -> None:
    """Trains one stage; rank 0 leaves `dit.safetensors`."""
    params, recipe, data = run.params, run.params.recipes[stage], run.upstream("data")
    start = starting_weights(run, stage)
    dit = load_dit(start, params.dit_config(stage)) if start else DiT(params.dit_config(stage))
    clips, held_out = load_split(data, "mixkit_train"), load_split(data, "mixkit_val")
    frames, size = recipe.dataset.frames, recipe.dataset.size
    folder = latents_folder(run, stage)
    videos = load_set(run, folder, clips, (frames, *size)) if frames > 1 else None
    empty = text.load_embeddings(run.upstream("text"), [""])
    loss = flow.FlowMatchingLoss(dit)
    trainer = Trainer(
        run=run,
        world=world,
        loss=loss,
        terms=(),
        parameters=dict(dit.parameters_and_names()),
        schedule=Schedule(
            recipe.train.steps,
            recipe.valid.frequency,
            recipe.train.save,
            recipe.train.settings.gradient_accumulation_steps,
            recipe.train.clip_norm,
        ),
        optimizer_config=recipe.train.optimizer,
        rate_config=recipe.train.lr_scheduler,
        validate=validation(loss, load_set(run, folder, held_out, (frames, *size)), recipe, params.seed, world),
    )
    trainer.fit(Batches(load_set(run, folder, clips, (1, *size)), videos, empty, recipe, params.seed, world))
    if world.is_main:
        save_dit(run.folder / WEIGHTS, dit)


def main(params: Params, options: argparse.Namespace) -> None:
    """`train --stage 1|2|3`."""
    check_supported(params.recipes[options.stage])
    device.start(params.seed, params.launch.jit_level, params.launch.max_device_memory)
    world = join_world()
    run = runs.find(params, f"stage{options.stage}")
    with runs.record(run) if world.is_main else nullcontext():
        train(run, options.stage, world)
        barrier(world)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _drop(
    embeddings: tuple[np.ndarray, ...], empty: tuple[np.ndarray, ...], indices: list[int], dropped: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The captions' embeddings, the empty caption's where `dropped` (B,) says so."""
    taken = [array[indices].copy() for array in embeddings]
    for array, nothing in zip(taken, empty, strict=True):
        array[dropped] = nothing[0]
    return tuple(taken)
