"""Normalised latents to the frames of a clip, by the autoencoder in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moviegen.config import ConfigError, Tiling
from moviegen.tae.model import Decode
from moviegen.tae.tiling import decode_tiles
from moviegen.tae.weights import load_tae


class LatentDecoder:
    """Graphs are compiled once a shape.

    Args:
        path: of the autoencoder.
        channels: of the latents.

    Raises:
        ConfigError: the file is damaged, or decodes other latents.
    """

    def __init__(self, path: Path, channels: int, tiling: Tiling) -> None:
        self.tae, self.tiling = load_tae(path), tiling
        if (own := self.tae.config.latent_channels) != channels:
            raise ConfigError(f"{path} decodes latents of {own} channels, and {channels} are sampled")
        self.decode = Decode(self.tae)

    def __call__(self, latent: np.ndarray, frames: int) -> Iterator[np.ndarray]:
        """The frames of a latent (C, T', H', W') as they are decoded: (3, 1, H, W) in [-1, 1] each."""
        pieces = decode_tiles(self.decode, self.tae.denormalize(latent[None]), frames, self.tiling)
        return (piece[0] for piece in pieces)
