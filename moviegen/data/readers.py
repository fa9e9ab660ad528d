"""Three ways to fetch frames of a video file by number: a frame has number n when n frames are shown before it.

`counted` decodes from the start and counts: exact for any file. `pyav` seeks to the key frame before the first frame
asked for and goes by the times that packets state. `decord` seeks too, by times that may be its own: asked for frames
40 to 49 of an AVI file with B-frames it gives 6 to 15. `proofs` says which is exact for a file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moviegen.data.pictures import Pictures
from moviegen.data.streams import BrokenVideo, Timeline, counted, opened, sought, timeline

HAS_DECORD = importlib.util.find_spec("decord") is not None  # no aarch64 wheel

Reader = Literal["decord", "pyav", "counted"]


def by_decord(path: Path | str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Number -> uint8 (H, W, 3) of ascending frame numbers; raises RuntimeError where decord cannot read them."""
    return dict(zip(numbers, batch(open_decord(path), numbers), strict=True))


def by_seeking(path: Path | str, numbers: Collection[int]) -> dict[int, np.ndarray]:
    """Number -> uint8 (H, W, 3), of those frames that a seek finds."""
    line = timeline(path)
    if line is None:
        return {}
    return _collect(path, numbers, line)[0]


def by_counting(path: Path | str, numbers: Collection[int]) -> tuple[dict[int, np.ndarray], int]:
    """Number -> uint8 (H, W, 3), of those frames that there are, and how many were decoded to find them."""
    return _collect(path, numbers)


def windows_by_counting(path: Path | str, windows: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
    """uint8 (T, H, W, 3) of each of `windows`, numbers that ascend from the first window to the last, in one pass.

    Raises BrokenVideo when the file cannot be decoded or has no such frame.
    """
    number = -1
    with opened(path) as (container, stream):
        pictures, frames = Pictures(stream.sample_aspect_ratio), counted(path, container, stream)
        for window in windows:
            images: list[np.ndarray] = []
            while len(images) < len(window):
                number, frame = next(frames, (number, None))
                if frame is None:
                    raise BrokenVideo(path, f"it has {number + 1} frames: there is no frame {window[len(images)]}")
                if number == window[len(images)]:
                    images.append(pictures.rgb(frame))
            yield np.stack(images)


def _collect(
    path: Path | str, numbers: Collection[int], line: Timeline | None = None
) -> tuple[dict[int, np.ndarray], int]:
    key = line.key_before(min(numbers)) if line else 0
    images, number = dict[int, np.ndarray](), -1
    with opened(path) as (container, stream):
        pictures = Pictures(stream.sample_aspect_ratio)
        frames = sought(container, stream, line, key) if line and key else counted(path, container, stream)
        for number, frame in frames:
            if number in numbers:
                images[number] = pictures.rgb(frame)
            if len(images) == len(numbers):
                break
    return images, number + 1


def open_decord(path: Path | str) -> Any:
    """A decord.VideoReader; raises RuntimeError."""
    # Imported at the first use and not above: MindSpore aborts the process if decord was loaded before it.
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(str(Path(path).absolute()), num_threads=1)
    except decord.DECORDError as error:
        raise RuntimeError(f"{path}: {error}") from None


def batch(reader: Any, numbers: Sequence[int]) -> np.ndarray:
    """Frames of ascending numbers, uint8 (T, H, W, 3), from a decord.VideoReader; raises RuntimeError."""
    import decord

    try:
        return reader.get_batch(list(numbers)).asnumpy()
    except (decord.DECORDError, IndexError) as error:
        raise RuntimeError(str(error)) from None
