"""Which positions of a latent stand out of their frame, as the outlier penalty sees it (paper 3.1.1, eq. 1)."""

from __future__ import annotations

import numpy as np


def deviations(latent: np.ndarray) -> np.ndarray:
    """How far positions are from their frame's mean, in that frame's standard deviations.

    Both are over the positions of a frame, and distances are lengths of vectors of C channels: the penalty counts a
    position where this is more than its radius r.

    Args:
        latent: (C, T', H', W').

    Returns:
        (T', H', W').
    """
    centred = latent - latent.mean((2, 3), keepdims=True)
    squares = (centred**2).sum(0)
    spread = np.sqrt(squares.mean((1, 2), keepdims=True))
    return np.sqrt(squares) / np.maximum(spread, np.finfo(latent.dtype).tiny)
