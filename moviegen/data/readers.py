"""Three ways to fetch frames of a video file by number: a frame has number n when n frames are shown before it.

`counted` decodes from the start and counts: exact for any file. `pyav` seeks to the key frame before the first frame
asked for and goes by the times that packets state. `decord` seeks too, by times that may be its own: asked for frames
40 to 49 of an AVI file with B-frames it gives 6 to 15. `proofs` says which is exact for a file.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moviegen.data.pictures import Pictures
from moviegen.data.streams import BrokenVideo, counted, opened, sought, timeline

HAS_DECORD = importlib.util.find_spec("decord") is not None  # no aarch64 wheel

Reader = Literal["decord", "pyav", "counted"]


def by_decord(path: Path | str, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of each of `numbers`, which ascend, as soon as it is decoded.

    Raises RuntimeError where decord cannot read them.
    """
    return each(open_decord(path), numbers)


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


def open_decord(path: Path | str) -> Any:
    """A decord.VideoReader; raises BrokenVideo."""
    # Imported at the first use and not above: MindSpore aborts the process if decord was loaded before it.
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(str(Path(path).absolute()), num_threads=1)
    except decord.DECORDError as error:
        raise RuntimeError(f"{path}: {error}") from None


def each(reader: Any, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """Frames of ascending numbers, one uint8 (H, W, 3) after the other, from a decord.VideoReader.

    Raises RuntimeError where it cannot read them.
    """
    import decord

    try:
        for number in numbers:
            yield reader[number].asnumpy()
    except (decord.DECORDError, IndexError, StopIteration) as error:
        raise RuntimeError(str(error)) from None
