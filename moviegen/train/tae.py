"""`python -m moviegen tae train --phase image|video`: an image autoencoder on frames, then its inflation on clips."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np

from moviegen import device, runs
from moviegen.config import Params, TAEConfig, TAEStage, latent_size
from moviegen.data import datasets, videos
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split
from moviegen.device.collectives import World
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.model import TAE, Encode, Reconstruct
from moviegen.tae.weights import inflate, load_tae, save_tae
from moviegen.train.loop import Batch, Schedule, Trainer
from moviegen.weights import assign, load_arrays

VALIDATION_CLIPS = 16
WEIGHTS = "tae.safetensors"


def batch_at(clips: list[Clip], stage: TAEStage, config: TAEConfig, seed: int, step: int, micro: int) -> Batch:
    """Random crops of random frames, and the noise that samples their latents; follows from (seed, step, micro)."""
    rng = np.random.default_rng([seed, step, micro])
    chosen = [clips[i] for i in datasets.batch_indices(len(clips), stage.batch_size, step - 1, seed)]
    views = []
    for clip in chosen:
        indices = videos.clip_indices(clip.frames, stage.frames, rng=rng)
        views.append(videos.random_resized_crop(videos.read_frames(clip.path, indices), *stage.size, rng))
    video = np.stack(views)
    noise = rng.standard_normal(latent_shape(video.shape, config), np.float32)
    media = "video" if stage.frames > 1 else "image"
    return Batch((video, noise), media, tuple(clip.path.name for clip in chosen))


def latent_shape(video: tuple[int, ...], config: TAEConfig) -> tuple[int, ...]:
    """(B, 3, T, H, W) -> (B, C, T', H', W')."""
    batch, _, frames, height, width = video
    length, rows, columns = latent_size(frames, height, width)
    return batch, config.latent_channels, length if config.is_temporal else frames, rows, columns


def centre_views(clips: list[Clip], frames: int, size: tuple[int, int]) -> np.ndarray:
    """The fixed views of clips: float32 (B, 3, T, H, W) in [-1, 1]."""
    return np.stack([videos.centre_view(clip.path, clip.frames, frames, *size) for clip in clips])


def mean_psnr(restored: np.ndarray, original: np.ndarray) -> float:
    """Mean over a batch of each clip's PSNR in dB; values in [-1, 1], the first axis is the batch."""
    squared = ((restored - original) / 2) ** 2
    return float(np.mean(-10 * np.log10(squared.reshape(len(squared), -1).mean(1))))


def validation(tae: TAE, clips: list[Clip], stage: TAEStage) -> Callable[[], Mapping[str, float]]:
    """L1 and PSNR (dB) of the reconstructed centre views, always of the same clips."""
    every = max(1, len(clips) // VALIDATION_CLIPS)
    views = centre_views(clips[::every][:VALIDATION_CLIPS], stage.frames, stage.size)
    views = views[: max(1, len(views) // stage.batch_size) * stage.batch_size]
    reconstruct = Reconstruct(tae)

    def validate() -> dict[str, float]:
        tae.set_train(False)
        batches = [views[i : i + stage.batch_size] for i in range(0, len(views), stage.batch_size)]
        restored = np.concatenate([np.clip(reconstruct(ms.Tensor(b)).asnumpy(), -1, 1) for b in batches])
        return {"loss": float(np.abs(restored - views).mean()), "psnr": mean_psnr(restored, views)}

    return validate


def measure_latents(tae: TAE, clips: list[Clip], stage: TAEStage) -> TAEConfig:
    """The TAE's config with `shift` and `scaling` measured, where they were left open."""
    if tae.config.scaling_factor is not None and tae.config.shift_factor is not None:
        return tae.config
    encode = Encode(tae)
    chosen = clips[:: max(1, len(clips) // VALIDATION_CLIPS)]
    views = centre_views(chosen, stage.frames, stage.size)
    latents = np.concatenate([encode(ms.Tensor(view[None]))[0].asnumpy() for view in views])
    return tae.config.model_copy(
        update={"shift_factor": float(latents.mean()), "scaling_factor": float(1 / latents.std())}
    )


def record_inflation(run: runs.Run, tae: TAE, clips: list[Clip], stage: TAEStage) -> None:
    """Measures how far inflation moved the reconstruction of single images (it should not have)."""
    image_autoencoder = load_tae(run.upstream("tae-image").folder / WEIGHTS)
    images = centre_views(clips[: stage.batch_size], 1, stage.size)
    before, after = (Reconstruct(net)(ms.Tensor(images)).asnumpy() for net in (image_autoencoder, tae))
    runs.write_json(
        run.folder / "inflation.json",
        {
            "images": len(images),
            "max_difference": float(np.abs(before - after).max()),
            "psnr_image_vae": mean_psnr(before, images),
        },
    )


def adopt(run: runs.Run, tae: TAE, checkpoint: Path) -> None:
    """Takes a trained image autoencoder instead of training one.

    Raises:
        CheckpointError: there is no such file, or its names and shapes are not this image autoencoder's.
    """
    arrays, _ = load_arrays(checkpoint)
    assign(dict(tae.parameters_and_names()), arrays, str(checkpoint))
    save_tae(run.folder / WEIGHTS, tae, tae.config)


def train(run: runs.Run, phase: str) -> None:
    """Trains one phase and leaves `tae.safetensors`."""
    params = run.params
    stage: TAEStage = getattr(params.tae, phase)
    data = run.upstream("data")
    clips, held_out = load_split(data, "ucf101_train"), load_split(data, "ucf101_test")
    config = params.tae.model.model_copy(update={"is_temporal": phase == "video"})
    if phase == "video":
        tae = inflate(run.upstream("tae-image").folder / WEIGHTS, config)
        record_inflation(run, tae, held_out, stage)
    else:
        tae = TAE(config)
        if params.tae.vae_checkpoint:
            adopt(run, tae, Path(params.tae.vae_checkpoint))
            return
    trainer = Trainer(
        run=run,
        world=World(),
        loss=TAETrainingLoss(tae, params.tae.loss),
        terms=TAETrainingLoss.terms,
        parameters=dict(tae.parameters_and_names()),
        schedule=Schedule(stage.steps, stage.validation_interval, stage.save, clip_norm=stage.clip_norm),
        optimizer_config=stage.optimizer,
        rate_config=stage.lr_scheduler,
        validate=validation(tae, held_out, stage),
    )
    trainer.fit(partial(batch_at, clips, stage, config, params.seed))
    save_tae(run.folder / WEIGHTS, tae, measure_latents(tae, clips, stage))


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae train --phase image|video`."""
    device.start(params.seed)
    with runs.record(runs.find(params, f"tae-{options.phase}")) as run:
        train(run, options.phase)
