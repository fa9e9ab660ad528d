"""Temporal Autoencoder (paper 3.1.1): 8x8x8 compression into 16 channels."""

from moviegen.config import TAEConfig
from moviegen.tae.model import TAE

__all__ = ["TAE", "TAEConfig"]
