"""Numbers published by others, written down only here, and, of seconds a step, in `moviegen.plan.published`.

All are from the original report, mindone's examples/moviegen/docs/report.md (MindSpore 2.3.1, Ascend 910*, bf16).
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


TAE_SCORES = (TAEScore(False, 2.18, 31.35, 0.92), TAEScore(True, 2.18, 31.17, 0.92))

# Support in the original report: accuracy verified on a small data set, supported but under verification, or to do.
VERIFIED, SUPPORTED, TO_DO = "accuracy verified", "supported", "to do"
SUPPORT_CLIPS = {1: "images", 2: "256 frames at 256 px", 3: "256 frames at 768 px"}
SUPPORT = {
    "1B": (VERIFIED, VERIFIED, VERIFIED),
    "5B": (VERIFIED, VERIFIED, SUPPORTED),
    "30B": (SUPPORTED, VERIFIED, TO_DO),
}

CARD_MEMORY_GB = 64  # one Ascend Atlas 800T A2 card
PARAMETERS = {"1B": "1 B", "5B": "5 B", "30B": "30 B"}
