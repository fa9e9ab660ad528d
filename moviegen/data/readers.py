"""Two ways to fetch frames of a video file by number: a frame has number n when n frames are shown before it.

`counted` decodes from the start and counts: exact for any file. `pyav` seeks to the key frame before the first frame
asked for and goes by the times that packets state. `proofs` says whether that is exact for a file.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from moviegen.data.pictures import Pictures
from moviegen.data.streams import BrokenVideo, counted, opened, sought, timeline

Reader = Literal["pyav", "counted"]


def by_seeking(path: Path | str, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of each of `numbers`, which ascend, as soon as it is decoded; it ends where a seek finds none."""
    line = timeline(path)
    if line is None:
        return
    key = line.key_before(numbers[0])
    with opened(path) as (container, stream):
        pictures, remaining = Pictures(stream.sample_aspect_ratio), deque(numbers)
        for number, frame in sought(container, stream, line, key) if key else counted(path, container, stream):
            if number == remaining[0]:
                yield pictures.rgb(frame)
                remaining.popleft()
            if not remaining or number > remaining[0]:
                return


def by_counting(path: Path | str, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of each of `numbers`, which ascend, as soon as it is decoded.

    Raises BrokenVideo when the file cannot be decoded or has no such frame.
    """
    last = -1
    with opened(path) as (container, stream):
        pictures, frames = Pictures(stream.sample_aspect_ratio), counted(path, container, stream)
        for wanted in numbers:
            for last, frame in frames:
                if last == wanted:
                    yield pictures.rgb(frame)
                    break
            else:
                raise BrokenVideo(path, f"it has {last + 1} frames: there is no frame {wanted}")


def windows_by_counting(path: Path | str, windows: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
    """uint8 (T, H, W, 3) of each of `windows`, numbers that ascend from the first window to the last, in one pass.

    Raises BrokenVideo when the file cannot be decoded or has no such frame.
    """
    windows = list(windows)
    frames = by_counting(path, itertools.chain.from_iterable(windows))
    return (np.stack(list(itertools.islice(frames, len(window)))) for window in windows)
