"""Shots of the film Big Buck Bunny with captions, cut into clips in the layouts of mixkit and UCF-101.

A table has a line for each, as `params/big_buck_bunny.csv`: its scene, what is done in it, its frames [start, end), its
split, a caption that was written by looking at it, and the same in other words. A scene is in one split only.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from moviegen.config import ConfigError
from moviegen.data.readers import by_counting
from moviegen.data.tables import read_rows
from moviegen.data.videos import write_video

FPS, EVERY = 24, 2  # the film's rate; every second frame is taken, so that its clips are as fast as the photographs'
WIDE, NARROW = 2, 3  # its 1280x720 become 640x360, and the middle of it UCF-101's 320x240
SPLITS = {"train": "train", "val": "test"}  # as mixkit's lists and UCF-101's folders call them


@dataclass(frozen=True)
class Shot:
    """A stretch of the film without a cut."""

    scene: str
    action: str
    start: int
    end: int
    split: str
    caption: str
    paraphrase: str

    @property
    def name(self) -> str:
        """Of its clip among the captioned ones."""
        return f"{self.scene.replace(' ', '-')}-{self.start:05}.mp4"

    @property
    def frames(self) -> range:
        """The film's frames that its clips hold."""
        return range(self.start, self.end, EVERY)


def shots(table: Path) -> tuple[Shot, ...]:
    """All of a table, as they follow each other in the film.

    Raises:
        ConfigError: it is not such a table; names the line.
    """
    rows = read_rows(table, {field.name for field in fields(Shot)})
    return tuple(_shot(table, number, row) for number, row in enumerate(rows, 2))


def _shot(table: Path, number: int, row: Mapping[str, str]) -> Shot:
    values = {field.name: row[field.name] for field in fields(Shot)}
    whole = all(values[name].isdecimal() for name in ("start", "end")) and int(values["start"]) < int(values["end"])
    if not whole or values["split"] not in SPLITS or not re.fullmatch(r"\w+", values["action"]):
        raise ConfigError(
            f"{table}, shot {number - 1}: frames [{values['start']}, {values['end']}) of {values['action']!r}, split "
            f"{values['split']!r}: frames are numbers that rise, an action is one word, a split {' or '.join(SPLITS)}"
        )
    return Shot(**{**values, "start": int(values["start"]), "end": int(values["end"])})  # type: ignore[arg-type]


def paths(folder: Path, chosen: Iterable[Shot]) -> dict[Shot, tuple[Path, Path]]:
    """Where each shot's clips lie: the captioned one, and the one of its class of UCF-101, a group a shot."""
    groups: Counter[str] = Counter()
    lie = {}
    for shot in chosen:
        groups[shot.action] += 1
        classed = f"UCF-101/{SPLITS[shot.split]}/{shot.action}/v_{shot.action}_g{groups[shot.action]:02}_c01.avi"
        lie[shot] = folder / "mixkit" / shot.name, folder / classed
    return lie


def cut(film: Path, folder: Path, chosen: Sequence[Shot]) -> Path:
    """Writes each shot's two clips; what is there stays.

    Raises:
        BrokenVideo: the film does not decode so far.
    """
    missing = {
        shot: clips for shot, clips in paths(folder, chosen).items() if not all(clip.is_file() for clip in clips)
    }
    numbers = itertools.chain.from_iterable(shot.frames for shot in missing)
    frames = by_counting(film, numbers)
    for shot, (captioned, classed) in tqdm(missing.items(), "cutting the film", unit="shot", disable=None):
        pictures = [Image.fromarray(picture) for picture in itertools.islice(frames, len(shot.frames))]
        classed.parent.mkdir(parents=True, exist_ok=True)
        write_video(classed, np.stack([_middle(picture) for picture in pictures]), FPS / EVERY, "mpeg4")
        write_video(captioned, np.stack([np.asarray(picture.reduce(WIDE)) for picture in pictures]), FPS / EVERY)
    return folder


def _middle(picture: Image.Image) -> np.ndarray:
    """The middle of a picture in 4:3, as UCF-101's clips are."""
    width = 4 * picture.height // 3
    left = (picture.width - width) // 2
    return np.asarray(picture.crop((left, 0, left + width, picture.height)).reduce(NARROW))
