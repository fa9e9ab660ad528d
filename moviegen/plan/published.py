"""Published seconds a training step, which plans are held against; written down only here.

Those with MindSpore 2.3.1 are from the original report, mindone's examples/moviegen/docs/report.md (Ascend 910*, bf16);
those with 2.7.0 from the released implementation's later table (Atlas 800T A2, jit level O1, bf16).
"""

from __future__ import annotations

from dataclasses import dataclass

MIXKIT_CLIPS = 100  # of the original report's training set


@dataclass(frozen=True)
class Timing:
    """Seconds a training step on 8 cards takes; the release counts micro-batches, not updates."""

    size: str
    stage: int
    batch: str  # images + videos on a card
    resolution: str
    recompute: str
    shards: str
    mindspore_2_3_1: float
    mindspore_2_7_0: float


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
