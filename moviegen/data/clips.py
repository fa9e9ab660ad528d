"""One clip of a data set: what is known of it, its frames, and the index that lists it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from moviegen.data import videos
from moviegen.data.readers import Reader
from moviegen.data.tables import read_rows
from moviegen.runs.files import write_csv

SHOWN_FPS = 12  # at which a clip is shown that does not state its rate


@dataclass(frozen=True)
class Clip:
    """One video file and what is known of it; frames, height, width and fps are 0 until `check_clips` fills them in.

    With a stride, `frames` and `fps` count what is left when only every stride-th frame of the file is taken. An `fps`
    of 0 that stays says that the file does not state its own. A paraphrase says what the caption says in other words:
    nothing is trained on it.
    """

    path: Path
    caption: str = ""
    label: str = ""
    group: int = 0
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    stride: int = 1
    reader: Reader = "counted"
    paraphrase: str = ""


def read(clip: Clip, indices: Sequence[int]) -> np.ndarray:
    """The frames `indices` of a clip, uint8 (T, H, W, 3) RGB.

    Raises BrokenVideo when the file cannot be decoded or has no such frame.
    """
    return videos.read_frames(clip.path, [index * clip.stride for index in indices], clip.reader)


def frames_of(clip: Clip, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """`read` of ascending numbers, one frame (H, W, 3) after the other, each as soon as it is decoded."""
    return videos.frames_of(clip.path, [index * clip.stride for index in indices], clip.reader)


def read_windows(clip: Clip, windows: Iterable[Sequence[int]]) -> Iterator[Iterator[np.ndarray]]:
    """`frames_of` each of `windows`, one after the other: their numbers ascend from the first window to the last."""
    numbers = ([index * clip.stride for index in window] for window in windows)
    return videos.read_windows(clip.path, numbers, clip.reader)


def save_index(path: Path | str, clips: Iterable[Clip], root: Path | str) -> None:
    """Write the clips as CSV, paths relative to `root` (a moved data set keeps its index)."""
    rows = [asdict(clip) | {"path": Path(os.path.relpath(clip.path, root)).as_posix()} for clip in clips]
    write_csv(Path(path), [field.name for field in fields(Clip)], map(dict.values, rows))


def load_index(path: Path | str, root: Path | str) -> list[Clip]:
    """The clips `save_index` wrote. Raises FileNotFoundError or ValueError for a missing, empty or other CSV."""
    rows = read_rows(Path(path), {field.name for field in fields(Clip)})
    clips = TypeAdapter(list[Clip]).validate_python(rows)
    return [replace(clip, path=Path(root) / clip.path) for clip in clips]
