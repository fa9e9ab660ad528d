"""`python -m moviegen tae train --phase image|opl-off|opl-on|mixkit`: the runs of the original report's TAE section.

An image autoencoder on single frames (unless a pretrained one is given), its inflation trained on UCF-101 without and
with the outlier penalty, and the former, or a trained TAE that is given, fine-tuned on mixkit: that one is used from
there on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import device, runs
from moviegen.config import ConfigError, Params, TAEConfig, TAELoss, TAEStage, latent_size, weights_file
from moviegen.data.clips import Clip
from moviegen.data.crops import RandomCrops, centre_views, spread
from moviegen.data.pixels import to_uint8
from moviegen.data.quarantine import Quarantine
from moviegen.data.scores import psnr
from moviegen.data.splits import load_split
from moviegen.device.precision import check_convolves
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.runs.files import write_json
from moviegen.runs.ranks import recorded
from moviegen.runs.weights import to_arrays
from moviegen.tae.factors import measure_latents
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import LPIPS, load_lpips
from moviegen.tae.model import TAE, Reconstruct
from moviegen.tae.weights import inflate, load_tae, load_weights, save_tae, stored_config
from moviegen.train.ema import EMA
from moviegen.train.loop import Batch, Schedule, Trainer
from moviegen.train.optim import LossScale

WEIGHTS = "tae.safetensors"
COMPILED = ("optimizer", "clip_norm", "settings", "ema", "recompute_every_nth_block")  # of a stage, beside the network


@dataclass(frozen=True)
class Phase:
    """One run: its parameters (`tae.<stage>`), its clips, the program it starts from."""

    stage: str
    data_set: str
    start: str | None = None
    has_outlier_penalty: bool = False

    def splits(self, data: runs.Run) -> tuple[list[Clip], list[Clip]]:
        """(training clips, held-out clips)."""
        names = {"ucf101": ("ucf101_train", "ucf101_test"), "mixkit": ("mixkit_train", "mixkit_val")}[self.data_set]
        training, held_out = (load_split(data, name) for name in names)
        return training, held_out


PHASES = {
    "image": Phase("image", "ucf101"),
    "opl-off": Phase("video", "ucf101", start="tae-image"),
    "opl-on": Phase("video", "ucf101", start="tae-image", has_outlier_penalty=True),
    "mixkit": Phase("mixkit", "mixkit", start="tae-opl-off"),
}


@dataclass(frozen=True)
class Batches:
    """Random crops, the noise that samples their latents, and which frames the perceptual term sees, where not all."""

    crops: RandomCrops
    config: TAEConfig
    perceptual_frames: int = 0

    def __call__(self, step: int, micro: int) -> Batch:
        """One micro-batch of this rank."""
        rng = np.random.default_rng([self.crops.seed, step, micro, 1 + self.crops.rank])
        video, names = self.crops(step, micro, rng)
        noise = rng.standard_normal(latent_shape(video.shape, self.config), np.float32)
        frames = self._frames(step, micro, video.shape[2])
        return Batch((video, noise, *frames), "image" if self.crops.sees_images(step, micro) else "video", names)

    def _frames(self, step: int, micro: int, length: int) -> tuple[np.ndarray, ...]:
        """The same of all ranks; nothing where the perceptual term sees all, or is not there."""
        if not self.perceptual_frames:
            return ()
        rng = np.random.default_rng([self.crops.seed, step, micro, 0])
        return (np.sort(rng.choice(length, min(length, self.perceptual_frames), replace=False)).astype(np.int32),)


def latent_shape(video: tuple[int, ...], config: TAEConfig) -> tuple[int, ...]:
    """(B, 3, T, H, W) -> (B, C, T', H', W')."""
    batch, _, frames, height, width = video
    length, rows, columns = latent_size(frames, height, width)
    return batch, config.latent_channels, length if config.is_temporal else frames, rows, columns


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


def mean_psnr(restored: np.ndarray, original: np.ndarray) -> float:
    """PSNR in dB as the evaluation has it, mean over frames and clips: (B, 3, T, H, W) in [-1, 1] twice."""
    pairs = zip(original, restored, strict=True)
    return float(np.mean([psnr(to_uint8(clip), to_uint8(restoration)).mean() for clip, restoration in pairs]))


def validation(
    reconstruct: Reconstruct, views: np.ndarray, batch_size: int
) -> Callable[[Callable[[], None]], Mapping[str, float]]:
    """L1 and PSNR (dB) of the reconstructed views (B, 3, T, H, W), in batches of one size (one compiled graph)."""
    size = min(batch_size, len(views))
    views = views[: len(views) // size * size]

    def restored_of(batch: np.ndarray, alive: Callable[[], None]) -> np.ndarray:
        restored = np.clip(reconstruct(ms.Tensor(batch)).asnumpy(), -1, 1)
        alive()
        return restored

    def validate(alive: Callable[[], None]) -> dict[str, float]:
        batches = [views[i : i + size] for i in range(0, len(views), size)]
        restored = np.concatenate([restored_of(batch, alive) for batch in batches])
        loss = float(np.abs(restored - views).mean())
        return {"loss": loss, "psnr": mean_psnr(restored, views) if math.isfinite(loss) else loss}

    return validate


def measured(run: runs.Run, tae: TAE, views: np.ndarray) -> TAEConfig:
    """`measure_latents` of a TAE that was just trained; where it is refused, its weights are saved first."""
    try:
        return measure_latents(tae, views)
    except ConfigError as error:
        path = run.folder / WEIGHTS
        save_tae(path, tae)
        raise ConfigError(f"{error}. With tae.tae_checkpoint {path} it need not be trained again") from None


def record_inflation(run: runs.Run, tae: TAE, images: np.ndarray) -> None:
    """Measures how far inflation moved the reconstruction of single images (it should not have)."""
    image_autoencoder = load_tae(run.upstream("tae-image").folder / WEIGHTS)
    before, after = (Reconstruct(net)(ms.Tensor(images)).asnumpy() for net in (image_autoencoder, tae))
    write_json(
        run.folder / "inflation.json",
        {
            "images": len(images),
            "max_difference": float(np.abs(before - after).max()),
            "psnr_image_vae": mean_psnr(before, images),
        },
    )


def perceptual(weights: TAELoss) -> LPIPS | None:
    """The frozen perceptual network, or None, said aloud, where the term is left out.

    Raises:
        ConfigError: the file that is named is not there.
        CheckpointError: it cannot be used.
    """
    if weights.perceptual == 0:
        return None
    if not weights.lpips_checkpoint:
        print(
            "the perceptual loss is left out: tae.loss.lpips_checkpoint names no file (README, Pretrained weights)",
            file=sys.stderr,
        )
        return None
    return load_lpips(weights_file("tae.loss.lpips_checkpoint", weights.lpips_checkpoint))


def starting_point(run: runs.Run, phase: Phase) -> TAE:
    """The network a phase trains, with the weights it starts from."""
    params = run.params
    config = params.tae.model.model_copy(update={"is_temporal": phase.start is not None})
    if phase.start == "tae-image":
        return inflate(run.upstream("tae-image").folder / WEIGHTS, config)
    tae = TAE(config)
    if phase.stage == "mixkit" and params.tae.start_checkpoint:
        load_weights(tae, weights_file("tae.start_checkpoint", params.tae.start_checkpoint))
    elif phase.start:
        load_weights(tae, run.upstream(phase.start).folder / WEIGHTS)
    return tae


def pretrained(params: Params, phase: Phase) -> Path | None:
    """The file of weights that is used instead of this phase's training; None: it is trained.

    Raises:
        ConfigError: the file that is named is not there.
    """
    parameter = {"image": "vae_checkpoint", "mixkit": "tae_checkpoint"}.get(phase.stage)
    named = getattr(params.tae, parameter) if parameter else ""
    return weights_file(f"tae.{parameter}", named) if named else None


def adopt(run: runs.Run, phase: Phase, checkpoint: Path) -> None:
    """Takes trained weights instead of training.

    Raises:
        CheckpointError: there is no such file, or its names and shapes are not this autoencoder's.
    """
    stage: TAEStage = getattr(run.params.tae, phase.stage)
    config = run.params.tae.model.model_copy(update={"is_temporal": phase.stage != "image"})
    tae = TAE(with_stored_factors(config, checkpoint))
    load_weights(tae, checkpoint)
    if phase.stage == "mixkit":
        _, held_out = phase.splits(run.upstream("data"))
        views = centre_views(spread(held_out), stage.frames, stage.size, Quarantine(run.folder / "quarantine.csv"))
        config = measure_latents(tae, views)
    save_tae(run.folder / WEIGHTS, tae, config)


def with_stored_factors(config: TAEConfig, checkpoint: Path) -> TAEConfig:
    """A config; factors that it leaves open are those that the file of weights says, where it does."""
    opened = [name for name in ("scaling_factor", "shift_factor") if getattr(config, name) is None]
    stored = stored_config(checkpoint) if opened else None  # some kinds of files are read whole for it
    return config.model_copy(update={name: getattr(stored, name) for name in opened} if stored else {})


class Graphs:
    """What a process compiles for a phase and trains the next ones by, where these differ in nothing that is compiled.

    Args:
        phases: all that the process trains. If one has the outlier penalty, so has the graph of all: with weight 0.
    """

    def __init__(self, phases: Iterable[Phase]) -> None:
        self.has_penalty = any(phase.has_outlier_penalty for phase in phases)
        self.compiled: tuple[TAETrainingLoss, Reconstruct, Trainer] | None = None
        self.stage: TAEStage | None = None  # that it was compiled for

    def trainer_of(self, run: runs.Run, phase: Phase, world: World, tae: TAE, views: np.ndarray) -> Trainer:
        """The trainer of a phase that starts from the weights of `tae`; its own network is `loss.tae`."""
        params, stage = run.params, getattr(run.params.tae, phase.stage)
        served = self._serving(tae, stage)
        if served:
            loss, reconstruct, trainer = served
            start = to_arrays(dict(tae.parameters_and_names()))
            trainer.zero.set_masters(lambda name: trainer.zero.held(start[name]))
        else:
            tae.compute_in(device.compute_dtype(stage.settings.dtype))
            tae.recompute_blocks(stage.recompute_every_nth_block)
            loss = TAETrainingLoss(tae, params.tae.loss, perceptual(params.tae.loss), self.has_penalty)
            reconstruct = Reconstruct(tae)
        if self.has_penalty:
            loss.penalise_outliers(phase.has_outlier_penalty)
        own: dict[str, Any] = {
            "run": run,
            "terms": tuple(term for term in loss.terms if term != "outlier" or phase.has_outlier_penalty),
            "schedule": Schedule(
                stage.steps,
                stage.validation_interval,
                stage.save,
                stage.settings.gradient_accumulation_steps,
                stage.clip_norm,
            ),
            "rate_config": stage.lr_scheduler,
            "validate": validation(reconstruct, views[world.rank :: world.size], stage.batch_size),
        }
        if served:
            trainer = trainer.following(**own)
        else:
            zero = Zero(tae, stage.settings.zero_stage, world)
            trainer = Trainer(
                zero=zero,
                loss=loss,
                optimizer_config=stage.optimizer,
                ema=EMA(zero, stage.ema.decay) if stage.ema else None,
                loss_scale=LossScale.first(tae.dtype),
                **own,
            )
        self.stage = stage
        self.compiled = loss, reconstruct, trainer
        return trainer

    def _serving(self, tae: TAE, stage: TAEStage) -> tuple[TAETrainingLoss, Reconstruct, Trainer] | None:
        """What is compiled, where it is what would be for a network of this shape, and this stage."""
        if self.compiled is None or self.stage is None or self.compiled[0].tae.config != tae.config:
            return None
        return self.compiled if all(getattr(stage, name) == getattr(self.stage, name) for name in COMPILED) else None


def train(run: runs.Run, phase: Phase, world: World, graphs: Graphs | None = None) -> None:
    """Trains one phase; rank 0 leaves `tae.safetensors`: the average of the weights, where one is kept.

    Args:
        graphs: of this process; without, it trains nothing else.
    """
    params = run.params
    stage: TAEStage = getattr(params.tae, phase.stage)
    clips, held_out = phase.splits(run.upstream("data"))
    check_enough(clips, world, "training")
    check_enough(spread(held_out), world, "validation")
    quarantine = Quarantine(run.folder / ("quarantine.csv" if world.is_main else f"quarantine-{world.rank}.csv"))
    views = centre_views(spread(held_out), stage.frames, stage.size, quarantine)
    tae = starting_point(run, phase)
    if phase.start == "tae-image" and tae.config.scaling_factor is not None:
        measure_latents(tae, views[:, :, :1])  # refused before anything is trained on them
    if run.program.name == "tae-opl-off" and world.is_main:  # inflation is the same in the run with the penalty
        record_inflation(run, tae, views[: stage.batch_size, :, :1])
    graphs = graphs or Graphs([phase])
    trainer = graphs.trainer_of(run, phase, world, tae, views)
    tae = trainer.loss.tae
    crops = RandomCrops(clips, stage, params.seed, world.rank, world.size, quarantine)
    seen = params.tae.loss.perceptual_frames if "perceptual" in trainer.terms else 0
    trainer.fit(Batches(crops, tae.config, seen))
    with trainer.ema.swapped() if trainer.ema else nullcontext():  # of all ranks: each has a part of the average
        if world.is_main:
            # only the last run's latents are ever normalised
            config = measured(run, tae, views) if phase.stage == "mixkit" else tae.config
            save_tae(run.folder / WEIGHTS, tae, config)
    if world.is_main:
        write_json(run.folder / "summary.json", {"terms": trainer.terms, "set_aside": len(quarantine)})


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae train --phase image|opl-off|opl-on|mixkit ...`."""
    graphs = Graphs([PHASES[name] for name in options.phase])
    for name in options.phase:
        phase = PHASES[name]
        checkpoint = pretrained(params, phase)
        if not checkpoint:
            check_convolves(getattr(params.tae, phase.stage).settings.dtype, f"tae.{phase.stage}.settings.dtype")
        with recorded(params, f"tae-{name}") as (run, world):
            if checkpoint:  # which takes one worker
                adopt(run, phase, checkpoint)
            else:
                train(run, phase, world, graphs)
