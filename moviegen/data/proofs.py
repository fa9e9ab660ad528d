"""A video file decoded whole once: what it measures, and the proof of which readers are exact for it."""

from __future__ import annotations

import statistics
import zlib
from collections import deque
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from moviegen.data.pictures import Pictures
from moviegen.data.readers import HAS_DECORD, Reader, batch, open_decord
from moviegen.data.streams import BrokenVideo, Timeline, check_limits, counted, opened, sought

SPANS = 8  # in which decord is tried: it is the slowest to try
# Their decoding is defined to the bit, so decord's FFmpeg of 2020 gives what PyAV's does. MPEG-4's inverse transform is
# not: in two clips of Xvid a pixel was one level off. AV1 is younger than decord, which complains on the terminal.
FOR_DECORD = {"ffv1", "h264", "hevc", "vp8", "vp9"}
MIN_SIDE = 8  # pixels: what the autoencoder makes one latent pixel of


class Decoded(NamedTuple):
    """A file whose frames were counted from the start.

    Height and width as shown; a digest of each frame as it is stored and its time; digests of the RGB pictures of those
    frames that are `marks` of the timeline; whether frames are shown as they are stored; the rate that the container
    states, frames a second, and the unit of the times in seconds.
    """

    size: tuple[int, int]
    stored: list[int]
    times: list[int | None]
    pictures: dict[int, int]
    plain: bool
    rate: Fraction
    unit: Fraction


def decode(path: Path | str, line: Timeline | None) -> Decoded:
    """Decodes every frame.

    Raises BrokenVideo where a frame is damaged or has another size than the first, and as `probe` says.
    """
    marked = {number for numbers in marks(line, len(line.times)) for number in numbers} if line else set()
    stored, times, shown, first = [], [], {}, None
    with opened(path) as (container, stream):
        pictures = Pictures(stream.sample_aspect_ratio)
        for number, frame in counted(path, container, stream):
            form = frame.width, frame.height, frame.rotation
            if first is None:
                first, size = form, _checked_size(path, pictures, frame)
                plain = pictures.is_plain(frame) and stream.codec_context.name in FOR_DECORD
            if frame.is_corrupt:
                raise BrokenVideo(path, f"frame {number} is damaged")
            if form != first:
                raise BrokenVideo(path, f"frame {number} is {_named(form)}, those before it are {_named(first)}")
            check_limits(path, number + 1, *size)
            stored.append(digest(*pictures.stored(frame)))
            times.append(frame.pts)
            if number in marked:
                shown[number] = digest(pictures.rgb(frame))
        rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
        unit = Fraction(stream.time_base or 0)
    if first is None:
        raise BrokenVideo(path, "it has 0 frames")
    return Decoded(size, stored, times, shown, plain, rate, unit)


def _checked_size(path: Path | str, pictures: Pictures, frame: av.VideoFrame) -> tuple[int, int]:
    height, width = pictures.size(frame)
    if min(height, width) < MIN_SIDE:
        raise BrokenVideo(path, f"its frames are {width}x{height}: a side is shorter than {MIN_SIDE} pixels")
    pictures.rgb(frame)  # raises where it cannot be shown right
    return height, width


def _named(form: tuple[int, int, int]) -> str:
    width, height, rotation = form
    return f"{width}x{height}" + (f" turned by {rotation} degrees" if rotation else "")


def frame_rate(decoded: Decoded) -> float:
    """Frames a second: what the container states where most frames follow each other so, to within a tick of its clock.

    Else the mean by the times of the first and the last frame: Matroska states 1000 for what has no constant rate. What
    the container states where frames have no times; 0 where it does not say.
    """
    times = [time for time in decoded.times if time is not None]
    if len(times) < max(2, len(decoded.times)) or times[-1] <= times[0]:
        return float(decoded.rate)
    step = Fraction(statistics.median(after - before for before, after in pairwise(times)))
    if decoded.rate and abs(step - 1 / (decoded.rate * decoded.unit)) <= 1:
        return float(decoded.rate)
    return float((len(times) - 1) / ((times[-1] - times[0]) * decoded.unit))


def marks(line: Timeline, frames: int) -> list[list[int]]:
    """For some spans between key frames, evenly spread, the numbers that tell whether decord is right in it.

    The first two tell whether it starts there and goes on, the last whether it arrives at the next: what goes wrong
    between key frames mostly stays until there.
    """
    spans = list(pairwise([*line.keys, frames]))
    chosen = [spans[i] for i in sorted(set(np.linspace(0, len(spans) - 1, SPANS).round().astype(int).tolist()))]
    return [sorted({start, min(start + 1, stop - 1), stop - 1}) for start, stop in chosen]


def digest(*planes: np.ndarray) -> int:
    """One number that pictures share only when they are equal, but for one in four thousand million."""
    number = 0
    for plane in planes:
        number = zlib.crc32(np.ascontiguousarray(plane).data, number)
    return number


def proven(path: Path | str, line: Timeline | None, decoded: Decoded) -> Reader:
    """The fastest reader that is exact for a file.

    `pyav`: each packet states the time of one frame, and sought at each key frame all frames up to the next are those
    that were counted, compared bit for bit. `decord`: moreover it counts as many frames and has the
    same key frames, and its `marks` are those that were counted, RGB bit for bit, each span sought anew.
    """
    if line is None or line.times != decoded.times or not _seeks_right(path, line, decoded):
        return "counted"
    return "decord" if HAS_DECORD and decoded.plain and _decord_right(path, line, decoded) else "pyav"


def repeats(path: Path | str, decoded: Decoded) -> bool:
    """Whether a file decodes to the same once more, in other memory.

    Damage that a decoder says nothing of may show what was there before.
    """
    held: deque[av.VideoFrame] = deque(maxlen=3)  # a frame that is held is not decoded into
    with opened(path) as (container, stream):
        pictures = Pictures(stream.sample_aspect_ratio)
        again = []
        for _, frame in counted(path, container, stream):
            again.append(digest(*pictures.stored(frame)))
            held.append(frame)
    return again == decoded.stored


def _seeks_right(path: Path | str, line: Timeline, decoded: Decoded) -> bool:
    spans = list(pairwise([*line.keys, len(decoded.stored)]))[1:]  # the first needs no seek
    try:
        with opened(path) as (container, stream):
            pictures = Pictures(stream.sample_aspect_ratio)
            for start, stop in spans:
                found = {}
                for number, frame in sought(container, stream, line, start):
                    if number >= stop:
                        break
                    found[number] = digest(*pictures.stored(frame))
                if found != dict(enumerate(decoded.stored[start:stop], start)):
                    return False
    except (BrokenVideo, av.FFmpegError):
        return False
    return True


def _decord_right(path: Path | str, line: Timeline, decoded: Decoded) -> bool:
    first, *others = marks(line, len(decoded.stored))
    try:
        reader = open_decord(path)
        if len(reader) != len(decoded.stored) or reader.get_key_indices() != line.keys:
            return False
        for numbers in (first, *reversed(others)):  # backwards: decord seeks where it has not just been
            if [digest(picture) for picture in batch(reader, numbers)] != [decoded.pictures[n] for n in numbers]:
                return False
    except RuntimeError:
        return False
    return True
