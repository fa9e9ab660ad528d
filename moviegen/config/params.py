"""A whole params file: data, autoencoder, text, the stages, launch, sampling."""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from moviegen.config.decisive import UNCOUNTED, LocalPath
from moviegen.config.networks import SIZES, DiTConfig, Group, TAEConfig
from moviegen.config.recipe import EMA, STAGE_GROUPS, LRScheduler, Optimizer, Recipe, Save, Settings, merge
from moviegen.config.shapes import PATCH, SPATIAL_COMPRESSION, check_pixels
from moviegen.config.tiling import Tiling

BESIDE = (
    "assets",
    "hashes.json",
    "measured.jsonl",
    "scale-proof",
)  # what lies in outputs/ beside the folders of scales


class Data(Group):
    """Where the clips come from."""

    root: LocalPath = Field(
        "", description="folder with UCF-101/ and mixkit/, from the checkout's top; empty: the sample set"
    )
    film: LocalPath = Field(
        "", description="a table of the film's shots that the sample set has beside photographs; empty: none"
    )
    split: Literal["group", "random"] = Field("group", description="8:2 by UCF-101 group, or plain random")
    test_share: float = Field(0.2, gt=0, lt=1)
    max_clips: int = Field(0, ge=0, description="at most so many clips of each list, evenly over its classes; 0: all")
    fps: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="frames a second; of faster clips every n-th frame is taken, which comes nearest; null: all frames",
    )
    time_limit: float = Field(
        300, gt=0, description="seconds in which a file must be decoded; one that takes longer is set aside"
    )
    patience_hours: Annotated[float | None, UNCOUNTED] = Field(
        None, gt=0, description="how long a program may take for the clips; where it would take longer it stops early"
    )


class TAEStage(Group):
    """One run of TAE training: on single frames (`frames: 1`), or on clips with some single frames among them."""

    steps: int = Field(gt=0, description="updates")
    worker_num: int | None = Field(
        None, gt=0, description="workers of one host; null: all of `launch` on cards, on a CPU one"
    )
    batch_size: int = Field(gt=0, description="clips a micro-batch of one worker")
    size: tuple[int, int] = Field(description="crop H, W in pixels")
    frames: int = Field(gt=0)
    image_ratio: float = Field(0.2, ge=0, le=1, description="share of the steps on clips that see single frames")
    optimizer: Optimizer = Optimizer()
    lr_scheduler: LRScheduler
    clip_norm: float = Field(1.0, gt=0)
    settings: Settings = Settings()
    ema: EMA | None = Field(None, description="null: no average of the weights is kept; else it is what is used")
    recompute_every_nth_block: int = Field(0, ge=0, description="of the residual blocks; 0: off; 1: every block")
    validation_interval: int = Field(gt=0)
    save: Annotated[Save, UNCOUNTED] = Save()

    @model_validator(mode="after")
    def _divisible(self) -> TAEStage:
        check_pixels("size", self.size, SPATIAL_COMPRESSION)
        if self.settings.zero_stage == 3:
            raise ValueError("settings.zero_stage 3 divides matrices, and the autoencoder has convolutions: use 2")
        self.save.check_validated(self.validation_interval)
        return self


class TAELoss(Group):
    """Weights of the TAE's loss terms (original report, hyperparameters of its evaluation)."""

    reconstruction: float = Field(1.0, ge=0)
    perceptual: float = Field(1.0, ge=0)
    lpips_checkpoint: LocalPath = Field(
        "", description="VGG16 and heads for the perceptual term; empty: it is left out"
    )
    perceptual_frames: int = Field(
        0, ge=0, description="frames of a clip, drawn at every step, that the perceptual term sees; 0: all"
    )
    kl: float = Field(1e-6, ge=0)
    outlier: float = Field(1.0, ge=0, description="outlier penalty, in the run that has it; the paper's is 1e5")
    outlier_radius: float = Field(3.0, gt=0, description="standard deviations from which a position is an outlier")


class TAEEvaluation(Group):
    """The fixed clip rule of PSNR, SSIM and LPIPS: the centre `frames` frames, resized and centre-cropped to `size`."""

    size: tuple[int, int] = (256, 256)
    frames: int = Field(32, gt=0)
    max_clips: int = Field(0, ge=0, description="evaluate at most so many test clips of each data set; 0: all")
    lpips_interval: int = Field(
        1, gt=0, description="LPIPS is of every n-th frame: it takes far longer than the others"
    )

    @model_validator(mode="after")
    def _divisible(self) -> TAEEvaluation:
        check_pixels("size", self.size, SPATIAL_COMPRESSION)
        return self


# phases of training -> the group of `tae` that each is trained by
TAE_PHASES: dict[str, Literal["image", "video", "mixkit"]] = {
    "image": "image", "opl-off": "video", "opl-on": "video", "mixkit": "mixkit",
}  # fmt: skip


class TAE(Group):
    """The Temporal Autoencoder section."""

    model: TAEConfig = TAEConfig()
    loss: TAELoss = TAELoss()
    image: TAEStage
    video: TAEStage
    mixkit: TAEStage
    evaluation: TAEEvaluation = TAEEvaluation()
    tiling: Tiling = Tiling()
    vae_checkpoint: LocalPath = Field("", description="an image VAE to inflate; empty: the one of the image run")
    start_checkpoint: LocalPath = Field(
        "", description="a trained TAE that the mixkit run fine-tunes; empty: the one of the run without the penalty"
    )
    tae_checkpoint: LocalPath = Field("", description="a trained TAE to use; empty: the one of the mixkit run")


class TextEncoder(Group):
    """One frozen text encoder."""

    width: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    folder: LocalPath = Field("", description="a local Hugging Face folder; empty: a seeded stand-in")


class Text(Group):
    """The three text encoders (paper 3.1.4), of which a small scale may leave some out."""

    ul2: TextEncoder | None = TextEncoder(width=4096, max_tokens=512)
    metaclip: TextEncoder | None = TextEncoder(width=1280, max_tokens=256)
    byt5: TextEncoder | None = TextEncoder(width=1472, max_tokens=128)

    @model_validator(mode="after")
    def _some(self) -> Text:
        if not self.encoders:
            raise ValueError(f"none of {', '.join(TEXT_ENCODERS)} is there: captions would say nothing")
        return self

    @property
    def encoders(self) -> dict[str, TextEncoder]:
        """Those that are there by name, in the order the transformer takes their embeddings."""
        return {name: encoder for name, encoder in self if encoder}

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all three in that order; 0: left out."""
        return tuple(encoder.width if encoder else 0 for _, encoder in self)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each encoder's embeddings, in that order."""
        return tuple(encoder.max_tokens for encoder in self.encoders.values())


TEXT_ENCODERS = tuple(Text.model_fields)  # in the order the transformer takes their embeddings


class Launch(Group):
    """The `msrun` job of a stage."""

    device: Literal["CPU", "Ascend"] = "Ascend"
    operators: Literal["auto", "compiled", "mindspore"] = Field(
        "auto", description="of the CPU: compiled ones where there is a C++ compiler, or MindSpore's own"
    )
    worker_num: int = Field(8, gt=0)
    local_worker_num: int = Field(8, gt=0)
    inference_worker_num: Annotated[int | None, UNCOUNTED] = Field(
        None,
        gt=0,
        description="workers of one host for what comes out alike of any number: text, latents, evaluation, sampling; "
        "null: all of `worker_num` on cards, on a CPU one",
    )
    bind_core: bool = True
    master_addr: str = Field("127.0.0.1", description="the first host, as the others reach it")
    master_port: int = Field(0, ge=0, lt=65536, description="0: any free port")
    node_rank: int = Field(0, ge=0, description="which of the hosts this is; 0: the first")
    stall_timeout: float = Field(
        3600,
        gt=0,
        description="seconds without a line of metrics that end the job; each batch of validation leaves one, and so "
        "do compilation and saving while they go on",
    )
    jit_level: Literal["O0", "O1"] = "O1"
    deterministic: bool = Field(
        False, description="cards add in one order, which takes longer; a CPU's operators do so anyway"
    )
    max_device_memory: str = "59GB"
    card: str | None = Field(
        None, description="of params/base/cards.yaml; what cannot fit it is not started; null: anything is"
    )
    force: bool = Field(False, description="start also what cannot fit the card")

    @model_validator(mode="after")
    def _hosts(self) -> Launch:
        if self.worker_num % self.local_worker_num:
            raise ValueError(
                f"worker_num {self.worker_num} is not a multiple of local_worker_num {self.local_worker_num}"
            )
        hosts = self.worker_num // self.local_worker_num
        if self.node_rank >= hosts:
            raise ValueError(f"node_rank {self.node_rank} is not one of the {hosts} hosts (0 is the first)")
        if hosts > 1 and not self.master_port:
            raise ValueError("several hosts must agree on a port: set master_port")
        return self


class ScheduleError(Group):
    """How far each schedule ends from a many-step solution, measured on the model and the clip size of stage 2."""

    prompts: int = Field(4, gt=0, description="captions of the validation set, all in one batch")
    steps: tuple[Annotated[int, Field(gt=1)], ...] = Field((5, 10, 25, 50), min_length=1)
    reference_steps: int = Field(1000, description="equal steps of the solution the others are compared with")
    guidance_gate: float = Field(
        0.5, gt=0, lt=1, description="share of the steps after which a gated solution reuses guidance's last difference"
    )

    @model_validator(mode="after")
    def _finer(self) -> ScheduleError:
        if self.reference_steps <= max(self.steps):
            raise ValueError(f"reference_steps {self.reference_steps} must be more than each of steps {self.steps}")
        return self


class Retrieval(Group):
    """Whether clips generated for training captions are nearest to the clips they belong to, at stage 3's view."""

    prompts: int = Field(64, gt=0, description="training captions, at most, and as many paraphrases")
    batch_size: int = Field(8, gt=0, description="prompts sampled at once")
    steps: int = Field(50, gt=0, description="equal Euler steps")
    guidance: float = Field(7.5, ge=0, allow_inf_nan=False)


class Sample(Group):
    """Sampling (paper 3.4.2)."""

    num_prompts: int = Field(
        4, gt=0, description="captions of the validation set to sample, as many of training, and their paraphrases"
    )
    batch_size: int = Field(1, gt=0, description="prompts sampled at once")
    steps: int = Field(50, gt=0)
    schedule: Literal["linear", "linear-quadratic", "linear-quadratic-smooth"] = "linear-quadratic"
    guidance: float = Field(7.5, ge=0, allow_inf_nan=False, description="1: the captions' own velocity, 0: of no text")
    guidance_gate: float = Field(
        1.0, gt=0, le=1, description="share of the steps after which guidance reuses its last difference; 1: never"
    )
    shards: Annotated[int, UNCOUNTED] = Field(
        1,
        gt=0,
        description="workers that share a clip's tokens; fewer where so many do not divide workers and heads",
    )
    zero_stage: Annotated[Literal[0, 3], UNCOUNTED] = Field(
        0,
        description="3: matrices are divided over the workers, and each is gathered for its product",
    )
    frames: int = Field(gt=0)
    size: tuple[int, int]
    fps: float = Field(16, gt=0, allow_inf_nan=False)
    schedule_error: ScheduleError = ScheduleError()
    retrieval: Retrieval = Retrieval()

    @model_validator(mode="after")
    def _divisible(self) -> Sample:
        check_pixels("size", self.size, SPATIAL_COMPRESSION * PATCH)
        return self

    def shards_among(self, workers: int, heads: int) -> int:
        """Workers that share the tokens of a clip, of so many workers and attention heads."""
        return math.gcd(self.shards, workers, heads)

    def exchanges(self, shards: int) -> bool:
        """Whether ranks need each other while they sample; then all of them sample equally many batches of one size."""
        return shards > 1 or self.zero_stage > 0


class Shipped(Group):
    """Trained weights that the sampling page shows beside the report's own; empty: none."""

    tae: LocalPath = Field("", description="a trained TAE")
    transformer: LocalPath = Field(
        "", description="a transformer, whose file says its size, trained on that one's latents"
    )

    @model_validator(mode="after")
    def _both(self) -> Shipped:
        if bool(self.tae) != bool(self.transformer):
            raise ValueError("name both tae and transformer, which were trained for each other, or neither")
        return self


class Params(Group):
    """A whole `params/<scale>.yaml`."""

    scale: str = Field(description="names the folder of its results below outputs/")
    seed: int = 42
    assets: Annotated[Literal["fetch", "none"], UNCOUNTED] = Field(
        "fetch", description="what `data assets` gets and this file names; none: `without_assets` is laid over it"
    )
    without_assets: Annotated[dict[str, Any], UNCOUNTED] = Field(
        {}, description="groups of this file, as they are where nothing is fetched"
    )
    data: Data = Data()
    tae: TAE
    text: Text = Text()
    model: dict[str, Any] = Field(description="see Model")
    dataset: dict[str, Any] = Field(description="see Dataset")
    dataloader: dict[str, Any] = Field(description="see Dataloader")
    train: dict[str, Any] = Field(description="see Train")
    valid: dict[str, Any] = Field(description="see Valid")
    stages: dict[int, dict[str, Any]] = Field(description="what differs in stage 1, 2, 3")
    launch: Launch = Launch()
    sample: Sample
    shipped: Shipped = Shipped()

    @field_validator("scale")
    @classmethod
    def _names_a_folder(cls, scale: str) -> str:
        if not re.fullmatch(r"\w[\w.+-]{0,99}", scale) or scale in BESIDE:
            raise ValueError(
                f"{scale!r} is no name for a folder: letters, digits, _, ., + and -, at most 100, no sign first"
            )
        return scale

    @model_validator(mode="after")
    def _stages(self) -> Params:
        if sorted(self.stages) != [1, 2, 3]:
            raise ValueError(f"stages must be 1, 2 and 3, not {sorted(self.stages)}")
        return self

    @cached_property
    def recipes(self) -> dict[int, Recipe]:
        """The three stages, each merged over the groups they share."""
        return {stage: Recipe.model_validate(self.recipe_values(stage)) for stage in self.stages}

    @property
    def ucf101_frames(self) -> int:
        """How long a UCF-101 clip must be."""
        return max(self.tae.video.frames, self.tae.evaluation.frames)

    @property
    def mixkit_frames(self) -> int:
        """How long a mixkit clip must be: for the autoencoder. A stage takes shorter ones in a shorter bucket."""
        return max(self.tae.mixkit.frames, self.tae.evaluation.frames)

    def recipe_values(self, stage: int) -> dict[str, Any]:
        """A stage's own values over the shared ones, not yet checked."""
        return merge({name: getattr(self, name) for name in STAGE_GROUPS}, self.stages[stage])

    def launch_of(self, stage: int) -> Launch:
        """The job of a stage: `launch`, of which it may take some workers of its one host."""
        return self._launch_with(self.recipes[stage].train.worker_num)

    def launch_of_phase(self, group: Literal["image", "video", "mixkit"]) -> Launch:
        """The job of a phase of the autoencoder's training, by its group of `tae`."""
        return self._launch_with(getattr(self.tae, group).worker_num or self._fewest)

    @property
    def inference_launch(self) -> Launch:
        """The job of a program whose result any number of workers computes alike."""
        return self._launch_with(self.launch.inference_worker_num or self._fewest)

    @property
    def _fewest(self) -> int | None:
        """Workers of what names none: on a CPU one, which computes with all its cores."""
        return 1 if self.launch.device == "CPU" else None

    def _launch_with(self, workers: int | None) -> Launch:
        """`launch` with so many workers of one host; None: as it is."""
        return self.launch.model_copy(update={"worker_num": workers, "local_worker_num": workers} if workers else {})

    def dit_config(self, stage: int) -> DiTConfig:
        """The transformer of a stage: its size, its position tables, this file's text widths."""
        model = self.recipes[stage].model
        recipe = {"max_size": model.max_size, "attend_to_padding": model.attend_to_padding}
        return SIZES[model.size].model_copy(update=recipe | {"text_widths": self.text.widths})
