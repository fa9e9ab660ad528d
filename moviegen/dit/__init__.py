"""The transformer (paper 3.1.3): LLaMa-3 blocks that predict the flow's velocity."""

from moviegen.config import SIZES, DiTConfig
from moviegen.dit.model import DiT

__all__ = ["SIZES", "DiT", "DiTConfig"]
