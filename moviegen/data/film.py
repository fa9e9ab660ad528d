"""Shots of the film Big Buck Bunny with captions, cut into a folder that `DATA=` takes.

`params/big_buck_bunny.csv` has a line for each: its scene, its frames [start, end), its split, a caption that was
written by looking at it, and the same in other words. A scene is in one split only.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from moviegen.config import project_root
from moviegen.data.readers import by_counting
from moviegen.data.videos import write_video
from moviegen.runs.files import write_csv

TABLE = "params/big_buck_bunny.csv"
FPS, HALVED = 24, 2  # the film's rate; its 1280x720 become 640x360
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shot:
    """A stretch of the film without a cut."""

    scene: str
    start: int
    end: int
    split: str
    caption: str
    paraphrase: str

    @property
    def name(self) -> str:
        """Of its clip."""
        return f"{self.scene.replace(' ', '-')}-{self.start:05}.mp4"


def shots() -> list[Shot]:
    """All of the table, as they follow each other in the film."""
    with (project_root() / TABLE).open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return [Shot(scene, int(start), int(end), *texts) for scene, start, end, *texts in lines]


def cut(film: Path, folder: Path, chosen: Sequence[Shot]) -> Path:
    """Writes each shot's clip, and the captions of each split beside them, in mixkit's layout; what is there stays.

    Raises:
        BrokenVideo: the film does not decode so far.
    """
    missing = [shot for shot in chosen if not (folder / "mixkit" / shot.name).is_file()]
    numbers = itertools.chain.from_iterable(range(shot.start, shot.end) for shot in missing)
    frames = by_counting(film, numbers)
    for shot in tqdm(missing, "cutting the film", unit="shot", disable=None):
        pictures = itertools.islice(frames, shot.end - shot.start)
        halved = [np.asarray(Image.fromarray(np.ascontiguousarray(picture)).reduce(HALVED)) for picture in pictures]
        write_video(folder / "mixkit" / shot.name, np.stack(halved), FPS)
    for split in SPLITS:
        rows = [(shot.name, shot.caption) for shot in chosen if shot.split == split]
        write_csv(folder / f"video_caption_{split}.csv", ("video", "caption"), rows)
    return folder
