"""The recipe of one training stage of the transformer, and what every training run shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from moviegen.config.networks import PATCH, SIZES, SPATIAL_COMPRESSION, Group, check_pixels, check_tables

STAGE_GROUPS = ("model", "dataset", "dataloader", "train", "valid")


class Optimizer(Group):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-15, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class LRScheduler(Group):
    """Warm-up, then halving whenever the validation loss plateaus (original report, Learning Rate Scheduling)."""

    lr: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(1000, ge=0)
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(50, gt=0, description="validations without improvement before the rate is cut")
    min_delta: float = Field(0.01, ge=0)
    min_lr: float = Field(1e-6, ge=0)


class Save(Group):
    """Checkpoints."""

    interval: int = Field(500, gt=0, description="steps between two checkpoints")
    keep: int = Field(10, gt=0, description="how many of the latest are kept")


class Model(Group):
    """Which transformer a stage trains."""

    size: str = Field(description="a row of the sizes table")
    max_size: tuple[int, int, int] = Field(description="position table lengths: T, H, W in patches")
    recompute_every_nth_block: int = Field(0, ge=0, description="0: off; 1: every block")
    not_recompute_fa: bool = Field(False, description="leave attention out of recomputation")
    pretrained_model_path: str = Field("", description="empty: the previous stage's checkpoint")

    @model_validator(mode="after")
    def _known(self) -> Model:
        if self.size not in SIZES:
            raise ValueError(f"size {self.size!r} is not one of {', '.join(SIZES)}")
        return self


class Dataset(Group):
    """What a stage sees."""

    size: tuple[int, int] = Field(description="H, W in pixels")
    frames: int = Field(gt=0, description="length of a video; 1: images only")
    tae_latent_folder: str = Field("", description="latents made elsewhere by this TAE; empty: this report's own")
    text_drop_prob: float = Field(0.2, ge=0, le=1, description="captions dropped for classifier-free guidance")

    @model_validator(mode="after")
    def _divisible(self) -> Dataset:
        check_pixels("size", self.size, SPATIAL_COMPRESSION * PATCH)
        return self


class BatchSize(Group):
    """Samples a micro-batch on one data-parallel rank."""

    image_batch_size: int = Field(ge=0)
    video_batch_size: int = Field(0, ge=0)


class Dataloader(Group):
    """Batches."""

    batch_size: BatchSize
    image_ratio: float = Field(0.5, ge=0, le=1, description="share of the steps of a joint stage that see images")


class Settings(Group):
    """How a step is computed."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    gradient_accumulation_steps: int = Field(1, gt=0)


class SequenceParallel(Group):
    """Ulysses."""

    shards: int = Field(1, gt=0)


class Train(Group):
    """The optimisation of one stage; `steps` counts optimizer updates."""

    steps: int = Field(gt=0)
    lr_scheduler: LRScheduler = LRScheduler()
    optimizer: Optimizer = Optimizer()
    clip_norm: float = Field(1.0, gt=0)
    settings: Settings = Settings()
    sequence_parallel: SequenceParallel = SequenceParallel()
    save: Save = Save()


class Valid(Group):
    """Validation loss at fixed times and fixed noise."""

    frequency: int = Field(100, gt=0, description="training steps between two validations")
    sampling_steps: int = Field(10, gt=0, description="how many fixed times in (0, 1)")


class Recipe(Group):
    """One training stage with nothing left to look up."""

    model: Model
    dataset: Dataset
    dataloader: Dataloader
    train: Train
    valid: Valid

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        check_tables("dataset", self.dataset.frames, self.dataset.size, self.model.max_size)
        if self.dataset.frames > 1 and self.dataloader.batch_size.video_batch_size == 0:
            raise ValueError("dataset.frames > 1 needs dataloader.batch_size.video_batch_size > 0")
        return self


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with another laid over it, key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
