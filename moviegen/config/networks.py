"""What the two networks are made of, and what every group of parameters shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
    text_widths: tuple[int, int, int] = Field((4096, 1280, 1472), description="UL2, MetaCLIP, ByT5; 0: left out")
    frequency_width: int = Field(256, gt=0, description="width of the sinusoidal timestep embedding")
    norm_eps: float = 1e-5
    attend_to_padding: bool = Field(False, description="the published weights were trained with unmasked text")

    @model_validator(mode="after")
    def _divisible(self) -> DiTConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        return self

    @property
    def embedding_widths(self) -> tuple[int, ...]:
        """Of the text encoders that are there."""
        return tuple(width for width in self.text_widths if width)


# Layers x width, as published; parameters without position tables and text projections in billions (`moviegen count`).
SIZES: dict[str, DiTConfig] = {
    "smoke": DiTConfig(num_layers=2,  width=64,   ffn_width=176,   num_heads=4),   # 0.0003 of them: nothing is learnt
    "tiny":  DiTConfig(num_layers=6,  width=192,  ffn_width=512,   num_heads=6),   # 0.004: a laptop's minutes
    "small": DiTConfig(num_layers=7,  width=160,  ffn_width=432,   num_heads=5),   # 0.003: an hour
    "1B":    DiTConfig(num_layers=24, width=1536, ffn_width=4096,  num_heads=16),  # 0.93
    "5B":    DiTConfig(num_layers=32, width=3072, ffn_width=8192,  num_heads=24),  # 4.92
    "30B":   DiTConfig(num_layers=48, width=6144, ffn_width=16384, num_heads=48),  # 29.30
}  # fmt: skip
