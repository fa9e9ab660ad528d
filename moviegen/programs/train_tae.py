"""`python -m moviegen tae train --phase image|opl-off|opl-on|mixkit`: the runs of the original report's TAE section.

An image autoencoder on single frames (unless a pretrained one is given), its inflation trained on UCF-101 without and
with the outlier penalty, and the former fine-tuned on mixkit: that one is used from there on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from moviegen import runs
from moviegen.config import ConfigError, Params, TAEConfig, TAELoss, TAEStage, latent_size, weights_file
from moviegen.data.clips import Clip
from moviegen.data.crops import RandomCrops, centre_views, spread
from moviegen.data.pixels import to_uint8
from moviegen.data.quarantine import Quarantine
from moviegen.data.scores import psnr
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.runs.files import write_json
from moviegen.runs.ranks import recorded
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import LPIPS, load_lpips
from moviegen.tae.model import TAE, Encode, Reconstruct
from moviegen.tae.weights import inflate, load_tae, load_weights, save_tae
from moviegen.train.loop import Batch, Schedule, Trainer

WEIGHTS = "tae.safetensors"
# How far normalised latents may be from mean 0 and standard deviation 1. FLUX's VAE, which has SD3.5's shape, is at 4.2
# with SD3.5's factors, and SD3.5's at 0.24 with FLUX's: 2 and 1/2 are half-way, and leave room for unusual clips.
FARTHEST_MEAN, FARTHEST_DEVIATION = 1.0, 2.0


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
    """Random crops, and the noise that samples their latents."""

    crops: RandomCrops
    config: TAEConfig

    def __call__(self, step: int, micro: int) -> Batch:
        """One micro-batch of this rank."""
        rng = np.random.default_rng([self.crops.seed, step, micro, 1 + self.crops.rank])
        video, names = self.crops(step, micro, rng)
        noise = rng.standard_normal(latent_shape(video.shape, self.config), np.float32)
        return Batch((video, noise), "image" if self.crops.sees_images(step, micro) else "video", names)


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


def validation(tae: TAE, views: np.ndarray, batch_size: int) -> Callable[[], Mapping[str, float]]:
    """L1 and PSNR (dB) of the reconstructed views (B, 3, T, H, W), in batches of one size (one compiled graph)."""
    size = min(batch_size, len(views))
    views = views[: len(views) // size * size]
    reconstruct = Reconstruct(tae)

    def validate() -> dict[str, float]:
        batches = [views[i : i + size] for i in range(0, len(views), size)]
        restored = np.concatenate([np.clip(reconstruct(ms.Tensor(batch)).asnumpy(), -1, 1) for batch in batches])
        loss = float(np.abs(restored - views).mean())
        return {"loss": loss, "psnr": mean_psnr(restored, views) if math.isfinite(loss) else loss}

    return validate


def measure_latents(tae: TAE, views: np.ndarray) -> TAEConfig:
    """The TAE's config; `shift` and `scaling`, where left open, measured over the latents of some views.

    Raises:
        ConfigError: those it has are another autoencoder's; see FARTHEST_MEAN.
    """
    encode, config = Encode(tae), tae.config
    latents = np.concatenate([encode(ms.Tensor(view[None]))[0].asnumpy() for view in views])
    shift, deviation = float(latents.mean(dtype=np.float64)), float(latents.std(dtype=np.float64))
    if not 0 < deviation < np.inf:
        raise ConfigError(f"the latents of {len(views)} clips have standard deviation {deviation}: nothing to scale by")
    used_shift = shift if config.shift_factor is None else config.shift_factor
    used_scaling = 1 / deviation if config.scaling_factor is None else config.scaling_factor
    mean, scaled = (shift - used_shift) * used_scaling, deviation * used_scaling
    if abs(mean) > FARTHEST_MEAN or not 1 / FARTHEST_DEVIATION < scaled < FARTHEST_DEVIATION:
        raise ConfigError(
            f"with tae.model.shift_factor {used_shift:.4g} and scaling_factor {used_scaling:.4g} the latents of "
            f"{len(views)} of the report's clips have mean {mean:.3g} and standard deviation {scaled:.3g}, and the "
            f"transformer needs about 0 and 1: these factors are another autoencoder's. This one's were measured as "
            f"shift_factor {shift:.4g} and scaling_factor {1 / deviation:.4g}: set these, or null, which measures them"
        )
    return config.model_copy(update={"shift_factor": used_shift, "scaling_factor": used_scaling})


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
    if phase.start:
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
    tae = TAE(config)
    load_weights(tae, checkpoint)
    if phase.stage == "mixkit":
        _, held_out = phase.splits(run.upstream("data"))
        views = centre_views(spread(held_out), stage.frames, stage.size, Quarantine(run.folder / "quarantine.csv"))
        config = measure_latents(tae, views)
    save_tae(run.folder / WEIGHTS, tae, config)


def train(run: runs.Run, phase: Phase, world: World) -> None:
    """Trains one phase; rank 0 leaves `tae.safetensors`."""
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
    loss = TAETrainingLoss(tae, params.tae.loss, perceptual(params.tae.loss), phase.has_outlier_penalty)
    trainer = Trainer(
        run=run,
        zero=Zero(tae, stage=0, world=world),
        loss=loss,
        terms=loss.terms,
        schedule=Schedule(stage.steps, stage.validation_interval, stage.save, clip_norm=stage.clip_norm),
        optimizer_config=stage.optimizer,
        rate_config=stage.lr_scheduler,
        validate=validation(tae, views[world.rank :: world.size], stage.batch_size),
    )
    crops = RandomCrops(clips, stage, params.seed, world.rank, world.size, quarantine)
    trainer.fit(Batches(crops, tae.config))
    if world.is_main:
        # only the last run's latents are ever normalised
        config = measured(run, tae, views) if phase.stage == "mixkit" else tae.config
        save_tae(run.folder / WEIGHTS, tae, config)
        write_json(run.folder / "summary.json", {"terms": loss.terms, "set_aside": len(quarantine)})


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae train --phase image|opl-off|opl-on|mixkit`."""
    phase = PHASES[options.phase]
    checkpoint = pretrained(params, phase)
    with recorded(params, f"tae-{options.phase}") as (run, world):
        if checkpoint:
            adopt(run, phase, checkpoint)
        else:
            train(run, phase, world)
