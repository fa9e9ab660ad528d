"""Every parameter of the report: what a `params/*.yaml` may hold, its types and bounds, and how files are read.

A parameter has one spelling everywhere: `train.steps` is the key in the YAML file, the flag `--train.steps` of
`python -m moviegen`, and the word in a notebook's `overrides`. Unknown names and bad values are refused with the file,
the full name, the value and the nearest known name.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SPATIAL_COMPRESSION = 8
TEMPORAL_COMPRESSION = 8
PATCH = 2
STAGE_GROUPS = ("model", "dataset", "dataloader", "train", "valid")


class ConfigError(ValueError):
    """A parameter that cannot be: the message names it, where it came from, and the fix."""


class Group(BaseModel):
    """Immutable, and closed: a name it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TAEConfig(Group):
    """Shape of the Temporal Autoencoder; the defaults are the SD3.5 VAE's, inflated (paper 3.1.1)."""

    base_channels: int = Field(128, gt=0)
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = Field(2, gt=0)
    latent_channels: int = Field(16, gt=0)
    num_groups: int = Field(32, gt=0, description="groups of every GroupNorm")
    is_temporal: bool = Field(True, description="False: the image autoencoder that is inflated")
    temporal_upsample_padding: Literal["replicate", "zeros"] = Field(
        "replicate", description="the original report says replicate; the published weights were trained with zeros"
    )
    scaling_factor: float | None = Field(
        1.5305, gt=0, description="latents are normalised to (z - shift) * scaling; null: measured when training ends"
    )
    shift_factor: float | None = 0.0609

    @model_validator(mode="after")
    def _divisible(self) -> TAEConfig:
        if len(self.channel_multipliers) != 4:
            raise ValueError(f"channel_multipliers {self.channel_multipliers}: 8x8x8 compression needs four levels")
        for multiplier in self.channel_multipliers:
            if self.base_channels * multiplier % self.num_groups:
                raise ValueError(
                    f"{self.base_channels * multiplier} channels (base_channels {self.base_channels} x {multiplier}) "
                    f"cannot be split into num_groups {self.num_groups}"
                )
        return self


class DiTConfig(Group):
    """Shape of the transformer: a LLaMa-3 backbone with cross-attention and adaptive layer norms (paper 3.1.3)."""

    width: int = Field(gt=0)
    ffn_width: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    max_size: tuple[int, int, int] = Field((32, 24, 24), description="rows of the position tables: T, H, W in patches")
    latent_channels: int = Field(16, gt=0)
    text_widths: tuple[int, int, int] = Field((4096, 1280, 1472), description="UL2, MetaCLIP, ByT5")
    frequency_width: int = Field(256, gt=0, description="width of the sinusoidal timestep embedding")
    norm_eps: float = 1e-5

    @model_validator(mode="after")
    def _divisible(self) -> DiTConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        return self


SIZES: dict[str, DiTConfig] = {
    "smoke": DiTConfig(width=64, ffn_width=176, num_heads=4, num_layers=2),
    "tiny": DiTConfig(width=192, ffn_width=512, num_heads=6, num_layers=6),
    "1B": DiTConfig(width=1536, ffn_width=4096, num_heads=16, num_layers=24),
    "5B": DiTConfig(width=3072, ffn_width=8192, num_heads=24, num_layers=32),
    "30B": DiTConfig(width=6144, ffn_width=16384, num_heads=48, num_layers=48),
}


class Data(Group):
    """Where the clips come from."""

    root: str = Field("", description="folder with UCF-101/ and mixkit/; empty: the rendered sample set")
    split: Literal["group", "random"] = Field("group", description="8:2 by UCF-101 group, or plain random")
    test_share: float = Field(0.2, gt=0, lt=1)


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


class TAEStage(Group):
    """One run of TAE training: on single frames (`frames: 1`) or on clips."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    size: tuple[int, int] = Field(description="crop H, W in pixels")
    frames: int = Field(gt=0)
    optimizer: Optimizer = Optimizer()
    lr_scheduler: LRScheduler
    clip_norm: float = Field(1.0, gt=0)
    validation_interval: int = Field(gt=0)
    save: Save = Save()

    @model_validator(mode="after")
    def _divisible(self) -> TAEStage:
        _check_pixels("size", self.size, SPATIAL_COMPRESSION)
        return self


class TAELoss(Group):
    """Weights of the TAE's loss terms."""

    reconstruction: float = Field(1.0, ge=0)
    kl: float = Field(1e-6, ge=0)


class TAEEvaluation(Group):
    """The fixed clip rule of PSNR and SSIM: the centre `frames` frames, resized and centre-cropped to `size`."""

    size: tuple[int, int] = (256, 256)
    frames: int = Field(32, gt=0)
    max_clips: int = Field(0, ge=0, description="evaluate at most so many test clips; 0: all")


class TAE(Group):
    """The Temporal Autoencoder section."""

    model: TAEConfig = TAEConfig()
    loss: TAELoss = TAELoss()
    image: TAEStage
    video: TAEStage
    evaluation: TAEEvaluation = TAEEvaluation()
    vae_checkpoint: str = Field("", description="an image VAE to inflate; empty: the one trained by the image run")


class TextEncoder(Group):
    """One frozen text encoder."""

    width: int = Field(gt=0)
    max_tokens: int = Field(gt=0)


class Text(Group):
    """The three text encoders (paper 3.1.4)."""

    ul2: TextEncoder = TextEncoder(width=4096, max_tokens=512)
    metaclip: TextEncoder = TextEncoder(width=1280, max_tokens=256)
    byt5: TextEncoder = TextEncoder(width=1472, max_tokens=128)

    @property
    def widths(self) -> tuple[int, int, int]:
        """Embedding widths in the order the transformer takes them."""
        return (self.ul2.width, self.metaclip.width, self.byt5.width)


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
    text_drop_prob: float = Field(0.2, ge=0, le=1, description="captions dropped for classifier-free guidance")

    @model_validator(mode="after")
    def _divisible(self) -> Dataset:
        _check_pixels("size", self.size, SPATIAL_COMPRESSION * PATCH)
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


class Launch(Group):
    """The `msrun` job of a stage."""

    device: Literal["CPU", "Ascend"] = "Ascend"
    worker_num: int = Field(8, gt=0)
    local_worker_num: int = Field(8, gt=0)
    bind_core: bool = True
    master_port: int = Field(0, ge=0, lt=65536, description="0: any free port")
    jit_level: Literal["O0", "O1"] = "O1"
    max_device_memory: str = "59GB"

    @model_validator(mode="after")
    def _hosts(self) -> Launch:
        if self.worker_num % self.local_worker_num:
            raise ValueError(
                f"worker_num {self.worker_num} is not a multiple of local_worker_num {self.local_worker_num}"
            )
        if self.worker_num > self.local_worker_num and not self.master_port:
            raise ValueError("several hosts must agree on a port: set master_port")
        return self


class Sample(Group):
    """Sampling (paper 3.4.2)."""

    num_prompts: int = Field(4, gt=0, description="captions of the validation set to sample, and as many training ones")
    steps: int = Field(50, gt=1)
    schedule: Literal["linear", "linear-quadratic"] = "linear-quadratic"
    guidance: float = Field(7.5, ge=0)
    frames: int = Field(gt=0)
    size: tuple[int, int]
    fps: float = Field(16, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> Sample:
        _check_pixels("size", self.size, SPATIAL_COMPRESSION * PATCH)
        return self


class Recipe(Group):
    """One training stage with nothing left to look up."""

    model: Model
    dataset: Dataset
    dataloader: Dataloader
    train: Train
    valid: Valid

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        tokens = latent_size(self.dataset.frames, *self.dataset.size)
        patches = (tokens[0], tokens[1] // PATCH, tokens[2] // PATCH)
        if any(need > have for need, have in zip(patches, self.model.max_size, strict=True)):
            raise ValueError(
                f"a {self.dataset.frames}x{self.dataset.size[0]}x{self.dataset.size[1]} video needs position tables of "
                f"{patches} patches, model.max_size has {self.model.max_size}"
            )
        if self.dataset.frames > 1 and self.dataloader.batch_size.video_batch_size == 0:
            raise ValueError("dataset.frames > 1 needs dataloader.batch_size.video_batch_size > 0")
        return self


class Params(Group):
    """A whole `params/<scale>.yaml`."""

    scale: str
    seed: int = 42
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

    @model_validator(mode="after")
    def _stages(self) -> Params:
        if sorted(self.stages) != [1, 2, 3]:
            raise ValueError(f"stages must be 1, 2 and 3, not {sorted(self.stages)}")
        return self

    @cached_property
    def recipes(self) -> dict[int, Recipe]:
        """The three stages, each merged over the groups they share."""
        return {stage: Recipe.model_validate(self.recipe_values(stage)) for stage in self.stages}

    def recipe_values(self, stage: int) -> dict[str, Any]:
        """A stage's own values over the shared ones, not yet checked."""
        return merge({name: getattr(self, name) for name in STAGE_GROUPS}, self.stages[stage])

    def dit_config(self, stage: int) -> DiTConfig:
        """The transformer of a stage: its size, its position tables, this file's text widths."""
        model = self.recipes[stage].model
        return SIZES[model.size].model_copy(update={"max_size": model.max_size, "text_widths": self.text.widths})


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T', H', W') of a (T, H, W) video: T' = ceil(T / 8), H' = H / 8, W' = W / 8."""
    return -(-frames // TEMPORAL_COMPRESSION), height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def project_root(start: Path | None = None) -> Path:
    """The checkout's top folder, from anywhere inside it.

    Raises:
        ConfigError: `start` (default: the working folder) is not inside a checkout.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise ConfigError(f"{start} is not inside a checkout of the report (no folder above it has params/ and notebooks/)")


def outputs_folder(params: Params) -> Path:
    """`outputs/<scale>`, or below `MOVIEGEN_OUTPUTS` where that is set (tests use it)."""
    return Path(os.environ.get("MOVIEGEN_OUTPUTS") or project_root() / "outputs") / params.scale


def load(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Reads a params file and lays `overrides` over it.

    Args:
        source: a path, or a scale's name (`tiny` means `params/tiny.yaml`).
        overrides: dotted name to value. `train.steps` sets every stage, `stages.2.train.steps` one.

    Raises:
        ConfigError: no such file, not YAML, an unknown name, a bad value.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = project_root() / "params" / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ConfigError(f"no params file {path}; there are: {known or 'none in that folder'}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no parameters")
    return parse(content, overrides, origin=str(path))


def parse(content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = "parameters") -> Params:
    """Builds `Params` from a nested mapping; see `load`."""
    overrides = dict(overrides or {})
    for name, value in overrides.items():
        content = _override(content, name, value)
    where = f"{origin} with {overrides}" if overrides else origin
    params = _validated(Params, content, where)
    for stage in params.stages:
        _validated(Recipe, params.recipe_values(stage), f"{where}, stage {stage}")
    return params


def parse_overrides(words: str | Iterable[str]) -> dict[str, Any]:
    """`"--train.steps 7 sample.steps=10"` to `{"train.steps": 7, "sample.steps": 10}`; values are read as YAML.

    Raises:
        ConfigError: a name without a value, or a value without a name.
    """
    words = shlex.split(words) if isinstance(words, str) else list(words)
    overrides: dict[str, Any] = {}
    position = 0
    while position < len(words):
        name, equals, value = words[position].partition("=")
        if not equals:
            if not name.startswith("--"):
                raise ConfigError(f"{name!r} is not a parameter: write --name value, or name=value")
            if position + 1 >= len(words):
                raise ConfigError(f"{name} has no value")
            position += 1
            value = words[position]
        overrides[name.removeprefix("--")] = yaml.safe_load(value) if value else value
        position += 1
    return overrides


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or nothing where no known name is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with another laid over it, key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def known_names(group: type[BaseModel] = Params, prefix: str = "") -> list[str]:
    """Every dotted parameter name."""
    names = []
    for name, field in group.model_fields.items():
        inner = STAGE_FIELDS.get(name) if group is Params else None
        inner = inner or next((t for t in (field.annotation, *get_args(field.annotation)) if _is_group(t)), None)
        names += known_names(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return names


STAGE_FIELDS: dict[str, type[Group]] = {name: Recipe.model_fields[name].annotation for name in STAGE_GROUPS}


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _override(content: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Lays one dotted override over `content`; an override of a stage group also wins over every stage's own value."""
    keys: list[Any] = name.split(".")
    _check_name(name, keys)
    if keys[0] == "stages":
        keys[1] = int(keys[1])
        return merge(content, _nest(keys, value))
    content = merge(content, _nest(keys, value))
    if keys[0] in STAGE_GROUPS:
        for stage, own in content.get("stages", {}).items():
            if _has(own, keys):
                content = merge(content, _nest(["stages", stage, *keys], value))
    return content


def _check_name(name: str, keys: list[str]) -> None:
    plain = keys[2:] if keys[0] == "stages" else keys
    if keys[0] == "stages" and (len(keys) < 3 or keys[1] not in ("1", "2", "3")):
        raise ConfigError(f"{name!r}: write stages.1.train.steps, with stage 1, 2 or 3")
    known = known_names()
    if not any(full == ".".join(plain) or full.startswith(".".join(plain) + ".") for full in known):
        raise ConfigError(f"unknown parameter {name!r}{nearest('.'.join(plain), known)}")


def _nest(keys: list[Any], value: Any) -> dict[Any, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _has(content: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True


def _check_pixels(name: str, size: tuple[int, int], multiple: int) -> None:
    if any(side <= 0 or side % multiple for side in size):
        fixed = tuple(max(multiple, side // multiple * multiple) for side in size)
        raise ValueError(f"{name} {size[0]}x{size[1]} is not divisible by {multiple}: use {fixed[0]}x{fixed[1]}")


def _validated(group: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    try:
        return group.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {_explain(item)}" for item in error.errors())) from None


def _explain(item: Mapping[str, Any]) -> str:
    name = ".".join(str(key) for key in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, known_names())}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("value_error", "missing"):
        return f"{name}: {message}" if name else message
    return f"{name} = {item['input']!r}: {message}"
