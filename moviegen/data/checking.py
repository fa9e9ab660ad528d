"""Which clips are sound, at which rate of frames they are taken, and what is to be said of the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from moviegen.data.clips import Clip
from moviegen.data.measuring import Unusable, Verdict
from moviegen.runs.folders import listed
from moviegen.runs.hashes import content_hashes

UNEVEN = 2  # times the slowest rate: where the fastest is more, it is said
SLOWER = 0.9  # of the rate asked for: 29.97 passes for 30


def check_clips(
    clips: Sequence[Clip], verdicts: Mapping[Path, Verdict], min_frames: int, fps: float | None = None
) -> tuple[list[Clip], dict[Path, Unusable]]:
    """The sound clips with all that was measured filled in, and the files that are set aside.

    Args:
        verdicts: of each clip's file, as `measure` gives them.
        min_frames: shorter clips are set aside; frames are counted at the rate they are taken at.
        fps: the rate to take frames at, as nearly as a whole stride can; None: all frames.
    """
    good: list[Clip] = []
    bad: dict[Path, Unusable] = {}
    for clip in clips:
        verdict = verdicts[clip.path]
        if isinstance(verdict, Unusable):
            bad[clip.path] = verdict
            continue
        sound = at_rate(replace(clip, **asdict(verdict)), fps)
        if sound.frames >= min_frames:
            good.append(sound)
        else:
            taken = f" of {verdict.frames} at a stride of {sound.stride} (data.fps)" if sound.stride > 1 else ""
            bad[clip.path] = Unusable("too short", f"{sound.frames} frames{taken}, the recipe needs {min_frames}")
    return good, bad


def at_rate(clip: Clip, fps: float | None) -> Clip:
    """The clip with the stride that comes nearest to `fps`: 1 where it is slower, states no rate, or `fps` is None."""
    stride = max(1, round(clip.fps / fps)) if fps else 1
    return replace(clip, stride=stride, frames=math.ceil(clip.frames / stride), fps=clip.fps / stride)


def rate_notes(name: str, clips: Sequence[Clip], fps: float | None) -> list[str]:
    """What is to be said of a list in which clips play at another speed than the rest.

    Args:
        name: of the list.
        clips: as `check_clips` gives them.
        fps: `data.fps`.
    """
    known = sorted(clip.fps for clip in clips if clip.fps)
    slower = sum(clip.stride == 1 and 0 < clip.fps < SLOWER * fps for clip in clips) if fps else 0
    unknown = len(clips) - len(known)
    notes = []
    if known and not fps and known[-1] > UNEVEN * known[0]:
        notes.append(
            f"{name}: clips of {known[0]:.3g} to {known[-1]:.3g} frames a second are taken frame by frame, as if they "
            f"played at one speed; data.fps {known[0]:.3g} brings them to nearly one rate"
        )
    if slower:
        notes.append(f"{name}: {slower} clips are slower than data.fps {fps:g} and keep their own rate")
    if unknown and (known or fps):
        notes.append(f"{name}: {unknown} clips state no rate and are taken frame by frame")
    return notes


def copy_notes(name: str, train: Sequence[Clip], held_out: Sequence[Clip]) -> list[str]:
    """What is to be said of held-out files that are copies of files trained on, and so are no unseen ones.

    Args:
        name: of the data set.
    """
    trained, held = ({clip.path for clip in clips} for clips in (train, held_out))
    contents = content_hashes(trained | held)
    seen = {contents[path] for path in trained}
    copies = sorted(str(path) for path in held - trained if contents[path] in seen)
    if not copies:
        return []
    return [
        f"{name}: {len(copies)} held-out files are copies of files trained on: remove one of each: {listed(copies)}"
    ]


def rates(clips: Sequence[Clip]) -> list[float]:
    """The lowest, the middle and the highest number of frames a second among clips that state one; empty: none does."""
    known = [clip.fps for clip in clips if clip.fps]
    return [min(known), statistics.median_low(known), max(known)] if known else []
