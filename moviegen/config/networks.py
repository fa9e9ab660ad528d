"""The shapes of the two networks, and what every group of parameters shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPATIAL_COMPRESSION = 8
TEMPORAL_COMPRESSION = 8
PATCH = 2


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
    attend_to_padding: bool = Field(False, description="the published weights were trained with unmasked text")

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


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T', H', W') of a (T, H, W) video: T' = ceil(T / 8), H' = H / 8, W' = W / 8."""
    return -(-frames // TEMPORAL_COMPRESSION), height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def check_pixels(name: str, size: tuple[int, int], multiple: int) -> None:
    """Refuses a (H, W) whose sides are not multiples of `multiple`, and names the nearest that fits."""
    if any(side <= 0 or side % multiple for side in size):
        fixed = tuple(max(multiple, side // multiple * multiple) for side in size)
        raise ValueError(f"{name} {size[0]}x{size[1]} is not divisible by {multiple}: use {fixed[0]}x{fixed[1]}")


def check_tables(
    name: str, frames: int, size: tuple[int, int], tables: tuple[int, int, int], owner: str = "model.max_size"
) -> None:
    """Refuses a video of more patches than the position tables (T, H, W) have rows; `owner` is what has the tables."""
    latent = latent_size(frames, *size)
    patches = (latent[0], latent[1] // PATCH, latent[2] // PATCH)
    if any(need > have for need, have in zip(patches, tables, strict=True)):
        raise ConfigError(
            f"{name}: a {frames}x{size[0]}x{size[1]} video needs position tables of {patches} patches, "
            f"{owner} has {tables}"
        )
