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
from moviegen.data.readers import HAS_DECORD, Reader, each, open_decord
from moviegen.data.streams import BrokenVideo, Timeline, check_limits, counted, opened, sought

SPANS = 8  # in which decord is tried: it is the slowest to try
# Their decoding is defined to the bit, so decord's FFmpeg of 2020 gives what PyAV's does. MPEG-4's inverse transform is
# not: in two clips of Xvid a pixel was one level off. AV1 is younger than decord, which complains on the terminal.
FOR_DECORD = {"ffv1", "h264", "hevc", "vp8", "vp9"}
MIN_SIDE = 8  # pixels: what the autoencoder makes one latent pixel of


class Decoded(NamedTuple):
    """A file whose frames were counted from the start.

    size: height and width as shown.
    stored: a digest of each frame as it is stored.
    times: when each frame is shown, in units of `time_base`; None where its packet does not say.
    pictures: number -> digest of the RGB picture, of the frames that `checked_frames` names.
    plain: whether frames are shown as they are stored, by a codec that decord may know.
    rate: frames a second as the container states them; 0 where it does not.
    time_base: seconds.
    """

    size: tuple[int, int]
    stored: list[int]
    times: list[int | None]
    pictures: dict[int, int]
    plain: bool
    rate: Fraction
    time_base: Fraction


def decode(path: Path | str, line: Timeline | None) -> Decoded:
    """Decodes every frame.

    Raises BrokenVideo where a frame is damaged or has another size than the first, and as `probe` says.
    """
    checked = {number for numbers in checked_frames(line, len(line.times)) for number in numbers} if line else set()
    stored, times, rgb, first = [], [], {}, None
    with opened(path) as (container, stream):
        pictures = Pictures(stream.sample_aspect_ratio)
        for number, frame in counted(path, container, stream):
            geometry = frame.width, frame.height, frame.rotation
            if first is None:
                first, size = geometry, _checked_size(path, pictures, frame)
                plain = pictures.is_plain(frame) and stream.codec_context.name in FOR_DECORD
            if frame.is_corrupt:
                raise BrokenVideo(path, f"frame {number} is damaged")
            if geometry != first:
                raise BrokenVideo(
                    path, f"frame {number} is {_described(geometry)}, those before it are {_described(first)}"
                )
            check_limits(path, number + 1, *size)
            stored.append(digest(*pictures.stored(frame)))
            times.append(frame.pts)
            if number in checked:
                rgb[number] = digest(pictures.rgb(frame))
        rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
        time_base = Fraction(stream.time_base or 0)
    if first is None:
        raise BrokenVideo(path, "it has 0 frames")
    return Decoded(size, stored, times, rgb, plain, rate, time_base)


def _checked_size(path: Path | str, pictures: Pictures, frame: av.VideoFrame) -> tuple[int, int]:
    height, width = pictures.size(frame)
    if min(height, width) < MIN_SIDE:
        raise BrokenVideo(path, f"its frames are {width}x{height}: a side is shorter than {MIN_SIDE} pixels")
    pictures.rgb(frame)  # raises where it cannot be shown right
    return height, width


def _described(geometry: tuple[int, int, int]) -> str:
    width, height, rotation = geometry
    return f"{width}x{height}" + (f" turned by {rotation} degrees" if rotation else "")


def frame_rate(decoded: Decoded) -> float:
    """Frames a second; 0 where neither the container nor the frames' times say.

    The container's rate where the median time between frames agrees with it to within one tick of its clock, or where
    frames have no times. Else the mean by the times of all frames: Matroska states 1000 for what has no constant rate.
    """
    times = [time for time in decoded.times if time is not None]
    if len(times) < max(2, len(decoded.times)) or times[-1] <= times[0]:
        return float(decoded.rate)
    step = Fraction(statistics.median(after - before for before, after in pairwise(times)))
    if decoded.rate and abs(step - 1 / (decoded.rate * decoded.time_base)) <= 1:
        return float(decoded.rate)
    return float((len(times) - 1) / ((times[-1] - times[0]) * decoded.time_base))


def checked_frames(line: Timeline, frames: int) -> list[list[int]]:
    """For some spans between key frames, evenly spread, the numbers of the frames that decord must read exactly.

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


def fastest_exact_reader(path: Path | str, line: Timeline | None, decoded: Decoded) -> Reader:
    """The fastest reader that is exact for a file.

    `pyav`: each packet states the time of one frame, and sought at each key frame all frames up to the next are those
    that were counted, compared bit for bit. `decord`: moreover it counts as many frames and has the
    same key frames, and its `checked_frames` are those that were counted, RGB bit for bit, each span sought anew.
    """
    if line is None or line.times != decoded.times or not _seeking_is_exact(path, line, decoded):
        return "counted"
    return "decord" if HAS_DECORD and decoded.plain and _decord_is_exact(path, line, decoded) else "pyav"


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


def _seeking_is_exact(path: Path | str, line: Timeline, decoded: Decoded) -> bool:
    spans = list(pairwise([*line.keys, len(decoded.stored)]))[1:]  # the first needs no seek
    try:
        with opened(path) as (container, stream):
            pictures = Pictures(stream.sample_aspect_ratio)
            for start, stop in spans:
                digests = {}
                for number, frame in sought(container, stream, line, start):
                    if number >= stop:
                        break
                    digests[number] = digest(*pictures.stored(frame))
                if digests != dict(enumerate(decoded.stored[start:stop], start)):
                    return False
    except (BrokenVideo, av.FFmpegError):
        return False
    return True


def _decord_is_exact(path: Path | str, line: Timeline, decoded: Decoded) -> bool:
    first, *others = checked_frames(line, len(decoded.stored))
    try:
        reader = open_decord(path)
        if len(reader) != len(decoded.stored) or reader.get_key_indices() != line.keys:
            return False
        for numbers in (first, *reversed(others)):  # backwards: decord seeks where it has not just been
            if [digest(picture) for picture in each(reader, numbers)] != [decoded.pictures[n] for n in numbers]:
                return False
    except RuntimeError:
        return False
    return True
