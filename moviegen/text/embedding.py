"""What a text encoder makes of a caption."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Embedding:
    """One caption through one encoder: `text_emb` (L, width), zero where `mask` (L,) is False, and `tokens` (L,)."""

    text_emb: np.ndarray
    mask: np.ndarray
    tokens: np.ndarray
