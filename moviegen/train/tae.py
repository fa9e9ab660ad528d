"""`python -m moviegen tae train --phase image|opl-off|opl-on|mixkit`: the runs of the original report's TAE section.

An image autoencoder on single frames (unless a pretrained one is given), its inflation trained on UCF-101 without and
with the outlier penalty, and the former fine-tuned on mixkit: that one is used from there on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from moviegen import device, runs
from moviegen.config import Params, TAEConfig, TAELoss, TAEStage, weights_file
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split
from moviegen.data.quarantine import Quarantine
from moviegen.device.collectives import World, barrier, join_world
from moviegen.parallel.zero import Zero
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import LPIPS
from moviegen.tae.model import TAE, Encode, Reconstruct
from moviegen.tae.weights import inflate, load_tae, save_tae
from moviegen.train.loop import Schedule, Trainer
from moviegen.train.tae_batches import Batches, centre_views, check_enough, some

WEIGHTS = "tae.safetensors"


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


def mean_psnr(restored: np.ndarray, original: np.ndarray) -> float:
    """Mean over a batch of each clip's PSNR in dB; values in [-1, 1], the first axis is the batch."""
    squared = ((restored - original) / 2) ** 2
    return float(np.mean(-10 * np.log10(squared.reshape(len(squared), -1).mean(1))))


def validation(tae: TAE, views: np.ndarray, batch_size: int) -> Callable[[], Mapping[str, float]]:
    """L1 and PSNR (dB) of the reconstructed views (B, 3, T, H, W), in batches of one size (one compiled graph)."""
    size = min(batch_size, len(views))
    views = views[: len(views) // size * size]
    reconstruct = Reconstruct(tae)

    def validate() -> dict[str, float]:
        batches = [views[i : i + size] for i in range(0, len(views), size)]
        restored = np.concatenate([np.clip(reconstruct(ms.Tensor(batch)).asnumpy(), -1, 1) for batch in batches])
        return {"loss": float(np.abs(restored - views).mean()), "psnr": mean_psnr(restored, views)}

    return validate


def measure_latents(tae: TAE, views: np.ndarray) -> TAEConfig:
    """The TAE's config; `shift` and `scaling`, where left open, measured over the latents of some views."""
    if tae.config.scaling_factor is not None and tae.config.shift_factor is not None:
        return tae.config
    encode = Encode(tae)
    latents = np.concatenate([encode(ms.Tensor(view[None]))[0].asnumpy() for view in views])
    return tae.config.model_copy(
        update={"shift_factor": float(latents.mean()), "scaling_factor": float(1 / latents.std())}
    )


def record_inflation(run: runs.Run, tae: TAE, images: np.ndarray) -> None:
    """Measures how far inflation moved the reconstruction of single images (it should not have)."""
    image_autoencoder = load_tae(run.upstream("tae-image").folder / WEIGHTS)
    before, after = (Reconstruct(net)(ms.Tensor(images)).asnumpy() for net in (image_autoencoder, tae))
    runs.write_json(
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
    return LPIPS(weights_file("tae.loss.lpips_checkpoint", weights.lpips_checkpoint))


def starting_point(run: runs.Run, phase: Phase) -> TAE:
    """The network a phase trains, with the weights it starts from."""
    params = run.params
    config = params.tae.model.model_copy(update={"is_temporal": phase.start is not None})
    if phase.start == "tae-image":
        return inflate(run.upstream("tae-image").folder / WEIGHTS, config)
    tae = TAE(config)
    if phase.start:
        tae.load_weights(run.upstream(phase.start).folder / WEIGHTS)
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
    tae.load_weights(checkpoint)
    if phase.stage == "mixkit":
        _, held_out = phase.splits(run.upstream("data"))
        views = centre_views(some(held_out), stage.frames, stage.size, Quarantine(run.folder / "quarantine.csv"))
        config = measure_latents(tae, views)
    save_tae(run.folder / WEIGHTS, tae, config)


def train(run: runs.Run, phase: Phase, world: World) -> None:
    """Trains one phase; rank 0 leaves `tae.safetensors`."""
    params = run.params
    stage: TAEStage = getattr(params.tae, phase.stage)
    clips, held_out = phase.splits(run.upstream("data"))
    check_enough(clips, world, "training")
    check_enough(some(held_out), world, "validation")
    quarantine = Quarantine(run.folder / ("quarantine.csv" if world.is_main else f"quarantine-{world.rank}.csv"))
    views = centre_views(some(held_out), stage.frames, stage.size, quarantine)
    tae = starting_point(run, phase)
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
    trainer.fit(Batches(clips, stage, tae.config, params.seed, world, quarantine))
    if world.is_main:
        # only the last run's latents are ever normalised
        config = measure_latents(tae, views) if phase.stage == "mixkit" else tae.config
        save_tae(run.folder / WEIGHTS, tae, config)
        runs.write_json(run.folder / "summary.json", {"terms": loss.terms, "set_aside": len(quarantine)})


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae train --phase image|opl-off|opl-on|mixkit`."""
    device.start(params.seed, params.launch)
    world = join_world()
    phase, run = PHASES[options.phase], runs.find(params, f"tae-{options.phase}")
    checkpoint = pretrained(params, phase)
    with runs.record(run) if world.is_main else nullcontext():
        if not checkpoint:
            train(run, phase, world)
        elif world.is_main:
            adopt(run, phase, checkpoint)
        barrier(world)
    barrier(world)  # the run is complete before a rank leaves: the notebook on its host looks for it
