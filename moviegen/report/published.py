"""Numbers published by others, each with its source; this is the only place they are written down.

All are from the original report, mindone's examples/moviegen/docs/report.md (MindSpore 2.3.1, Ascend 910*, bf16). Only
the times with MindSpore 2.7.0 are from the released implementation's later table (Atlas 800T A2, jit level O1, bf16).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TAEScore:
    """Reconstruction quality on the UCF-101 test split: 1 card, batch 1, 256x256x32."""

    opl: bool
    seconds_per_step: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Timing:
    """Seconds a training step on 8 cards takes."""

    size: str
    stage: int
    batch: str  # images + videos on a card
    resolution: str
    recompute: str
    shards: str
    mindspore_2_3_1: float
    mindspore_2_7_0: float


TAE_SCORES = (TAEScore(False, 2.18, 31.35, 0.92), TAEScore(True, 2.18, 31.17, 0.92))

TIMINGS = (
    Timing("30B", 1, "10 + 0", "256x455", "on", "-", 5.14, 3.62),
    Timing("30B", 2, "0 + 1", "256x256x455", "on", "8", 4.04, 2.57),
    Timing("30B", 3, "0 + 1", "256x576x1024", "on", "8", 37.7, 29.7),
    Timing("5B", 1, "10 + 0", "256x455", "off", "-", 0.82, 0.65),
    Timing("5B", 2, "1 + 1", "256x256x455", "not attention", "-", 4.12, 1.76),
    Timing("5B", 3, "1 + 1", "256x576x1024", "on", "-", 83.2, 66.2),
    Timing("1B", 1, "10 + 0", "256x455", "off", "-", 0.32, 0.33),
    Timing("1B", 2, "1 + 1", "256x256x455", "off", "-", 2.12, 0.56),
    Timing("1B", 3, "1 + 1", "256x576x1024", "not attention", "-", 23.2, 22.1),
)

# Support in the original report: accuracy verified on a small data set, supported but under verification, or to do.
VERIFIED, SUPPORTED, TO_DO = "accuracy verified", "supported", "to do"
SUPPORT = {
    "1B": (VERIFIED, VERIFIED, VERIFIED),
    "5B": (VERIFIED, VERIFIED, SUPPORTED),
    "30B": (SUPPORTED, VERIFIED, TO_DO),
}

CARD_MEMORY_GB = 64  # one Ascend Atlas 800T A2 card
PARAMETERS = {"1B": "1 B", "5B": "5 B", "30B": "30 B"}
