"""What a training stage sampled at its validations, of the same captions and noise: pictures, or clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moviegen.data import videos
from moviegen.data.crops import centre_frames, spread
from moviegen.data.splits import load_split
from moviegen.report import media, results, sections
from moviegen.runs import Run, find

LISTED = "samples.csv"
SPLITS = ("mixkit_train", "mixkit_val")  # whose captions are sampled
MOST_UPDATES = 5  # of a strip: the first, the last, and some between


def listed(run: Run | None) -> list[list[dict[str, Any]]]:
    """A stage's samples, those of each caption by themselves in the order of updates; none where it kept none."""
    found = results.read_csv(run, LISTED)
    if found is None:
        return []
    by_prompt = found.sort_values("step", kind="stable").groupby(["kind", "prompt", "seed"], sort=False)
    return [rows.to_dict("records") for _, rows in by_prompt]


def of_caption(run: Run | None, kind: str, caption: str) -> list[dict[str, Any]]:
    """Those of one caption."""
    return next((rows for rows in listed(run) if (rows[0]["kind"], rows[0]["prompt"]) == (kind, caption)), [])


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first and the last of some lines, and some evenly spread between them."""
    return rows if len(rows) <= MOST_UPDATES else [*spread(rows[:-1], MOST_UPDATES - 1), rows[-1]]


def real(run: Run, stage: int, caption: str) -> np.ndarray | None:
    """The first frame, as a stage sees it, of a clip that is captioned so; None where it cannot be read."""
    size = run.params.recipes[stage].dataset.size
    data = find(run.params, "data")
    splits = SPLITS if sections.is_complete(data) else ()
    clips = [clip for split in splits for clip in load_split(data, split) if clip.caption == caption]
    try:
        return next(centre_frames(clips[0], 1, *size)) if clips else None
    except (videos.BrokenVideo, OSError):
        return None


def tile(path: Path, caption: str, seen: str) -> str:
    """A sample with its caption.

    Args:
        seen: what there is to see, for who does not.

    Raises:
        DamagedFile: it is a picture, and damaged.
    """
    if path.suffix != ".png":
        return media.video(path, caption, seen)
    return media.tile(media.pixels(path), caption, seen)
