"""The video stream of one file: opened within limits, decoded in presentation order, and where decoding may start."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.stream import Disposition

from moviegen.data.pictures import MAX_PIXELS, UnsupportedPicture

MAX_FRAMES = 1_000_000  # of one file: nine hours at 30 a second
MAX_DECODED = 1 << 41  # pixels of one file: nine hours of 1080p, half an hour of 8K
STRICT = {"mjpeg": {"err_detect": "explode"}}  # else it shows what memory held where a damaged picture ends
JOIN = 3  # packets: where transport streams were joined, FFmpeg flags one so many before the key frame that starts anew


class BrokenVideo(ValueError):
    """A file that is missing, is no video, holds no frame, has frames that do not decode, or cannot be shown right."""

    def __init__(self, path: Path | str, reason: object) -> None:
        """Name the file and say what is wrong with it."""
        super().__init__(f"cannot read video {path}: {reason}")
        self.path = Path(path)
        self.reason = str(reason)


@contextmanager
def opened(path: Path | str) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """A file and the video stream that a player shows; whatever goes wrong with either inside is a BrokenVideo."""
    if not Path(path).is_file():
        raise BrokenVideo(path, "no such file")
    # Only files: a playlist that is named like a clip fetches nothing. FFmpeg decodes frames while it opens, so it is
    # told the limit already here. Tags in some old code page are no reason to refuse the pictures.
    options = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            stream = _video_stream(path, container)
            context = stream.codec_context
            check_limits(path, stream.frames, context.height, context.width)
            context.thread_count = 1
            context.options = {"max_pixels": str(MAX_PIXELS)} | STRICT.get(context.name, {})
            try:
                yield container, stream
            except av.FFmpegError as error:
                if context.width and context.height:
                    raise
                reason = f"{error}: it does not state the size of its frames, or one of more than {MAX_PIXELS} pixels"
                raise BrokenVideo(path, reason) from error
    except (av.FFmpegError, OSError, MemoryError, UnsupportedPicture) as error:
        raise BrokenVideo(path, str(error).replace(f": 'file:{path}'", "")) from error  # of the content, wherever it is


def _video_stream(path: Path | str, container: InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")  # of several: the default one, or the largest
    if not isinstance(stream, av.VideoStream):
        raise BrokenVideo(path, "it has no video stream")
    if stream.disposition & Disposition.attached_pic:
        raise BrokenVideo(path, "it has no video stream, only a cover picture")
    if stream.codec_context is None:
        raise BrokenVideo(path, "no decoder here knows its codec")
    return stream


def check_limits(path: Path | str, frames: int, height: int, width: int) -> None:
    """Raises BrokenVideo for more than any clip needs: of what a header claims, before memory is taken for it."""
    if height * width > MAX_PIXELS:
        raise BrokenVideo(path, f"its frames are {width}x{height} pixels: more than {MAX_PIXELS}")
    if frames > MAX_FRAMES:
        raise BrokenVideo(path, f"it states or has {frames} frames: more than {MAX_FRAMES}")
    if frames * height * width > MAX_DECODED:
        raise BrokenVideo(path, f"{frames} frames of {width}x{height} are more than {MAX_DECODED} pixels")


def packets(container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Every packet of a stream, and at the end an empty one.

    Where another stream appeared on the way, as in recordings of television, PyAV may look for it among those of the
    beginning when it has come to the end: the empty packet of this one came before.
    """
    with suppress(IndexError):
        yield from container.demux(stream)


def counted(path: Path | str, container: InputContainer, stream: av.VideoStream) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every frame with its number, from the start: exact for any file.

    Raises BrokenVideo where packets were lost on the way, or before the first: what follows up to the next key frame is
    guessed, and looks sound to the decoder.
    """
    number, hole, begun = -1, 0, False
    try:
        for packet in packets(container, stream):
            begun = begun or packet.is_keyframe
            hole = 0 if packet.is_keyframe else 1 if packet.is_corrupt else hole and hole + 1
            if hole > JOIN:
                raise BrokenVideo(path, f"after frame {number}: packets were lost")
            for frame in packet.decode():
                if (
                    not begun
                ):  # recordings may begin anywhere, and most decoders wait for a key frame: MPEG-4's does not
                    raise BrokenVideo(
                        path, "it begins after its first key frame: the frames up to the next are guessed"
                    )
                number += 1
                yield number, frame
    except av.FFmpegError as error:
        if number < 0:
            raise
        raise BrokenVideo(path, f"after frame {number}: {error}") from error


class Timeline(NamedTuple):
    """When frames are shown, by number, in the stream's time base; and the numbers of the key frames."""

    times: list[int]
    keys: list[int]

    def key_before(self, number: int) -> int:
        """The last key frame up to a frame; 0 where there is none."""
        return self.keys[max(0, bisect.bisect_right(self.keys, number) - 1)]

    def number(self, time: int | None) -> int | None:
        """The number of the frame shown from `time` on; None where no frame starts then."""
        index = -1 if time is None else bisect.bisect_left(self.times, time)
        return index if 0 <= index < len(self.times) and self.times[index] == time else None


def timeline(path: Path | str) -> Timeline | None:
    """The times that a file's packets state, without decoding; None where not every packet has one of its own."""
    if not Path(path).is_file():
        raise BrokenVideo(path, "no such file")
    status = Path(path).stat()
    return _timeline(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)  # a long film is read window by window
def _timeline(path: str, size: int, modified: int) -> Timeline | None:
    times, key_times = [], set()
    with opened(path) as (container, stream):
        for packet in packets(container, stream):
            if packet.size == 0 or packet.is_discard:  # the end; cut away by an edit list
                continue
            if packet.pts is None:
                return None
            times.append(packet.pts)
            check_limits(path, len(times), 0, 0)
            if packet.is_keyframe:
                key_times.add(packet.pts)
    times.sort()
    keys = [number for number, time in enumerate(times) if time in key_times]
    unique = len(set(times)) == len(times)
    return Timeline(times, keys) if unique and keys and keys[0] == 0 else None


def sought(
    container: InputContainer, stream: av.VideoStream, line: Timeline, key: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames from a key frame on with their numbers, by seeking: right where `probe` found it right."""
    container.seek(line.times[key], stream=stream)
    for packet in packets(container, stream):
        for frame in packet.decode():
            number = line.number(frame.pts)
            if number is not None and number >= key:  # before it come pictures that lack one of their neighbours
                yield number, frame
