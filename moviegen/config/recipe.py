"""The recipe of one training stage of the transformer, and what every training run shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from moviegen.config.decisive import UNCOUNTED, LocalPath, RunFolder
from moviegen.config.networks import SIZES, Group
from moviegen.config.shapes import (
    ASPECT_RATIOS,
    PATCH,
    SPATIAL_COMPRESSION,
    Bucket,
    check_pixels,
    check_tables,
    make_buckets,
)

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
    minutes: float | None = Field(
        None, gt=0, description="one also after the first step that ends so long after the last; null: by steps alone"
    )
    keep: int = Field(10, gt=0, description="how many are kept")
    ckpt_save_policy: Literal["latest_k", "top_k"] = Field(
        "latest_k", description="keep the latest, or those of the lowest validation loss and the very latest"
    )

    def check_validated(self, frequency: int) -> None:
        """Refuses to rank checkpoints by a validation of earlier weights."""
        if self.ckpt_save_policy == "top_k" and self.interval % frequency:
            raise ValueError(
                f"save.interval {self.interval} is not a multiple of the {frequency} steps between two validations: "
                f"top_k ranks checkpoints by the validation loss of their own weights"
            )


class Model(Group):
    """Which transformer a stage trains."""

    size: str = Field(description="a row of the sizes table")
    max_size: tuple[int, int, int] = Field(description="position table lengths: T, H, W in patches")
    recompute_every_nth_block: int = Field(0, ge=0, description="0: off; 1: every block")
    not_recompute_fa: bool = Field(False, description="leave attention out of recomputation")
    attend_to_padding: bool = Field(False, description="no text masks, as the published weights were trained")
    pretrained_model_path: LocalPath = Field("", description="empty: the previous stage's checkpoint")

    @model_validator(mode="after")
    def _known(self) -> Model:
        if self.size not in SIZES:
            raise ValueError(f"size {self.size!r} is not one of {', '.join(SIZES)}")
        return self


class Dataset(Group):
    """What a stage sees."""

    size: tuple[int, int] = Field(description="H, W in pixels; with aspect ratios, the area of each")
    aspect_ratios: tuple[str, ...] = Field((), description='such as ["16:9", "1:1"], or "all"; none: `size` alone')
    frames: tuple[int, ...] = Field(description="length of a video, or a list of lengths; 1: images only")
    tae_latent_folder: LocalPath = Field("", description="latents made elsewhere by this TAE; empty: this report's own")
    text_emb_folder: LocalPath = Field("", description="embeddings made elsewhere by these encoders; empty: our own")
    text_drop_prob: float = Field(0.2, ge=0, le=1, description="captions dropped for classifier-free guidance")
    token_drop_prob: float = Field(
        0.0, ge=0, lt=1, description="tokens of a caption that training hides: it learns from each of the others"
    )

    @field_validator("aspect_ratios", mode="before")
    @classmethod
    def _known_ratios(cls, value: Any) -> Any:
        if value == "all":
            return ASPECT_RATIOS
        listed = value if isinstance(value, list | tuple) else [value]
        for ratio in listed:
            if ratio not in ASPECT_RATIOS:  # YAML reads a bare 16:9 as the number 969
                raise ValueError(f'{ratio!r} is not one of {", ".join(ASPECT_RATIOS)}; quote them: ["16:9"]; or all')
        return listed

    @field_validator("frames", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("frames")
    @classmethod
    def _lengths(cls, frames: tuple[int, ...]) -> tuple[int, ...]:
        if frames != (1,) and (not frames or min(frames) < 2):
            raise ValueError(f"{list(frames)}: give the lengths of videos, each more than 1, or 1 for images only")
        return tuple(sorted(set(frames)))

    @model_validator(mode="after")
    def _divisible(self) -> Dataset:
        check_pixels("size", self.size, SPATIAL_COMPRESSION * PATCH)
        return self

    @property
    def longest(self) -> int:
        """Frames of the longest videos; 1 where there are only images."""
        return self.frames[-1]

    @property
    def longest_clip(self) -> Bucket:
        """The longest videos at the stage's own size; one image where there are only images."""
        return Bucket(self.longest, *self.size)

    @property
    def buckets(self) -> list[Bucket]:
        """Every shape of a clip: images, and videos of each length, in each aspect ratio."""
        return make_buckets(self.size, (1, *self.frames), self.aspect_ratios, SPATIAL_COMPRESSION * PATCH)

    @property
    def image_buckets(self) -> list[Bucket]:
        """Those of one frame."""
        return [bucket for bucket in self.buckets if bucket.frames == 1]


class BatchSize(Group):
    """Samples a micro-batch on one data-parallel rank."""

    image_batch_size: int = Field(ge=0)
    video_batch_size: int = Field(0, ge=0)

    def samples(self, clip: Bucket) -> int:
        """Of a micro-batch of such clips; one frame is an image."""
        return self.image_batch_size if clip.frames == 1 else self.video_batch_size


class Dataloader(Group):
    """Batches."""

    batch_size: BatchSize
    image_ratio: float = Field(0.5, ge=0, le=1, description="share of the steps of a joint stage that see images")


class Settings(Group):
    """How a step is computed."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="of the arithmetic; weights are float32; auto: bfloat16 on Ascend, float32 on CPU. On CPU bfloat16 "
        "leaves activations float32, rounds the factors of products, and takes compiled operators and AMX",
    )
    gradient_accumulation_steps: int = Field(1, gt=0)
    moment_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of AdamW's first moment, as it is held; the second is float32"
    )
    gradient_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of a rank's part of the gradients, as it waits for the update; they are summed over the ranks in "
        "float32. At ZeRO 0 of all gradients, or of none where there are more micro-batches",
    )


class SequenceParallel(Group):
    """Ulysses."""

    shards: int = Field(1, gt=0)


class EMA(Group):
    """The moving average of the weights."""

    decay: float = Field(0.9999, gt=0, lt=1)


class Profile(Group):
    """Which steps MindSpore's profiler traces, on every rank, into the run's folder `profile/`."""

    first: int = Field(10, gt=0)
    steps: int = Field(1, gt=0)


class Resume(Group):
    """Where a run without checkpoints of its own starts: at the newest of another run of the same stage.

    It goes on from that step with that run's weights, optimizer, average, learning rate and loss scale; `steps` counts
    the other run's too.
    """

    run: RunFolder = Field(min_length=1, description="folder of the other run, from the checkout's top")
    force: bool = Field(False, description="also where other parameters differ; otherwise they are listed and refused")


class Train(Group):
    """The optimisation of one stage; `steps` counts optimizer updates."""

    steps: int = Field(gt=0)
    worker_num: int | None = Field(None, gt=0, description="of the workers of `launch`, so many; null: all")
    time_sampling: Literal["logit-normal", "uniform"] = Field("logit-normal", description="times of training samples")
    time_shift: float = Field(
        1.0, ge=1, allow_inf_nan=False, description="moves them towards noise; 1: not; more for more tokens"
    )
    lr_scheduler: LRScheduler = LRScheduler()
    optimizer: Optimizer = Optimizer()
    clip_norm: float = Field(1.0, gt=0)
    settings: Settings = Settings()
    sequence_parallel: SequenceParallel = SequenceParallel()
    ema: EMA | None = Field(None, description="null: no average of the weights is kept")
    profile: Annotated[Profile | None, UNCOUNTED] = Field(None, description="null: no step is traced")
    resume: Resume | None = Field(None, description="null: a run goes on from its own checkpoints only")
    save: Annotated[Save, UNCOUNTED] = Save()


class TrainingSamples(Group):
    """What the weights make, at each validation, of the same captions and noise, as the stage's longest clips."""

    prompts: int = Field(1, gt=0, description="captions of each split: so many trained on, and so many held out")
    steps: int = Field(16, gt=0, description="of Euler, linear-quadratic")
    guidance: float = Field(3.0, ge=0, allow_inf_nan=False, description="as sample.guidance")


class Valid(Group):
    """Validation loss at fixed times and fixed noise."""

    frequency: int = Field(100, gt=0, description="training steps between two validations")
    sampling_steps: int = Field(10, gt=0, description="how many fixed times in (0, 1)")
    max_clips: int = Field(0, ge=0, description="at most so many held-out clips, evenly over their buckets; 0: all")
    samples: TrainingSamples | None = Field(None, description="null: training keeps no samples")


class Recipe(Group):
    """One training stage with nothing left to look up."""

    model: Model
    dataset: Dataset
    dataloader: Dataloader
    train: Train
    valid: Valid

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        for frames, height, width in self.dataset.buckets:
            check_tables("dataset", frames, (height, width), self.model.max_size)
        batch = self.dataloader.batch_size
        if self.sees_images and batch.image_batch_size == 0:
            raise ValueError("a stage that sees images needs dataloader.batch_size.image_batch_size > 0")
        if self.dataset.longest > 1 and batch.video_batch_size == 0:
            raise ValueError("dataset.frames > 1 needs dataloader.batch_size.video_batch_size > 0")
        self.train.save.check_validated(self.valid.frequency)
        if self.dataset.token_drop_prob and self.model.attend_to_padding:
            raise ValueError(
                f"dataset.token_drop_prob {self.dataset.token_drop_prob} hides tokens by the mask of the text, which "
                f"model.attend_to_padding leaves out: set one of the two to 0 or false"
            )
        heads, shards = SIZES[self.model.size].num_heads, self.train.sequence_parallel.shards
        if heads % shards:
            fewer = max(count for count in range(1, shards) if heads % count == 0)
            more = next((f" or {count}" for count in range(shards, heads + 1) if heads % count == 0), "")
            raise ValueError(
                f"train.sequence_parallel.shards {shards} does not divide {self.model.size}'s {heads} attention heads: "
                f"use {fewer}{more}"
            )
        return self

    @property
    def sees_images(self) -> bool:
        """Whether training draws images at all."""
        return self.dataset.longest == 1 or self.dataloader.image_ratio > 0


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with another laid over it, key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
