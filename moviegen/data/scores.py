"""PSNR, SSIM and LPIPS of a clip: what the evaluation reports, and what the autoencoder's training watches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

MEASURES = ("psnr", "ssim", "lpips")
# The smallest mean squared error that counts, in squared grey levels: that of rounding to 8 bits. 8-bit frames cannot
# show a smaller one, and identical frames (black restored as black) would have infinite decibels and so would the mean.
SMALLEST_ERROR = 1 / 12
HIGHEST_PSNR = 10 * math.log10(255**2 / SMALLEST_ERROR)  # dB: 58.92


def psnr(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """PSNR of each frame in dB, at most HIGHEST_PSNR: uint8 (T, H, W, 3) twice -> (T,).

    Raises:
        ValueError: the clips are of other values or shapes, or hold no frame.
    """
    check_alike(original, restored)
    pairs = zip(original, restored, strict=True)
    return np.array([HIGHEST_PSNR if (a == b).all() else min(HIGHEST_PSNR, _psnr(a, b)) for a, b in pairs])


def ssim(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """SSIM of each frame: uint8 (T, H, W, 3) twice -> (T,). Flat frames have one too: its two constants are positive.

    Raises:
        ValueError: the clips are of other values or shapes, hold no frame, or their frames are smaller than 7 x 7.
    """
    check_alike(original, restored)
    pairs = zip(original, restored, strict=True)
    return np.array([structural_similarity(a, b, channel_axis=-1, data_range=255) for a, b in pairs])


def identical(original: np.ndarray, restored: np.ndarray) -> int:
    """How many frames are equal to the last bit: uint8 (T, H, W, 3) twice."""
    check_alike(original, restored)
    return int((original == restored).all((1, 2, 3)).sum())


def score(
    original: np.ndarray, restored: np.ndarray, lpips: Callable[[np.ndarray, np.ndarray], float] | None = None
) -> dict[str, float | None]:
    """A clip's MEASURES, and how many of its frames are identical: uint8 (T, H, W, 3) twice.

    Args:
        lpips: the distance of two clips; None: it is not measured.
    """
    return {
        "psnr": float(psnr(original, restored).mean()),
        "ssim": float(ssim(original, restored).mean()),
        "lpips": lpips(original, restored) if lpips else None,
        "identical": identical(original, restored),
    }


def check_alike(original: np.ndarray, restored: np.ndarray) -> None:
    """Refuses what would be measured on another scale, or have no mean.

    Raises:
        ValueError: the clips are of other values or shapes, or hold no frame.
    """
    for clip in (original, restored):
        if clip.dtype != np.uint8 or clip.shape != original.shape or clip.ndim != 4 or not len(clip):
            raise ValueError(
                f"clips to compare are uint8 (T, H, W, 3) of one shape with T > 0, not {original.dtype} "
                f"{original.shape} and {restored.dtype} {restored.shape}"
            )


def _psnr(original: np.ndarray, restored: np.ndarray) -> float:
    return float(peak_signal_noise_ratio(original, restored, data_range=255))
