"""One video file: probe, read, write.

Frames are uint8 (T, H, W, 3) RGB: T frames, H rows, W columns. decord reads where it has a wheel (it seeks, so a few
frames of a long clip are cheap) and PyAV where it has none; both give the same frames. PyAV writes.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from moviegen.runs.files import replacing

HAS_DECORD = importlib.util.find_spec("decord") is not None  # no aarch64 wheel

Codec = Literal["libx264", "mpeg4"]
Reader = Literal["decord", "pyav"]

# One near-transparent setting per codec that repeats its bytes: one thread, and nothing decided by x264's lookahead,
# whose SIMD code gives other costs from run to run (x264 in PyAV 18; its plain C code does not).
ENCODERS: dict[Codec, dict[str, str]] = {
    "libx264": {
        "crf": "18",
        "preset": "veryfast",
        "x264-params": "threads=1:no-mbtree=1:b-adapt=0:scenecut=0:weightp=0",
    },
    "mpeg4": {"qscale": "3", "flags": "+qscale", "threads": "1"},
}


class BrokenVideo(ValueError):
    """A file that is missing, is not a video, holds no frame, or has frames that do not decode."""

    def __init__(self, path: Path | str, reason: object) -> None:
        """Name the file and say what is wrong with it."""
        super().__init__(f"cannot read video {path}: {reason}")
        self.path = Path(path)
        self.reason = str(reason)


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` measures.

    Decoded frames, their size in pixels as shown, frames a second (0 when not stated), and which reader gives exactly
    the frames asked for.
    """

    frames: int
    height: int
    width: int
    fps: float
    reader: Reader = "pyav"


def probe(path: Path | str) -> VideoInfo:
    """Decode the whole of `path` and measure it.

    Headers lie (Matroska states no frame count, half-copied files state too many, damage inside shows only when it is
    decoded), so every frame is decoded: thousands of UCF-101 frames a second, once per data set.

    Raises BrokenVideo when the file is missing, is not a video, holds no frame, or has a damaged frame.
    """
    frames = 0
    with _frames_of(path) as (stream, decoded):
        for frame in decoded:
            if frame.is_corrupt:
                raise BrokenVideo(path, f"frame {frames} is damaged")
            frames += 1
            height, width = _size(frame)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
    if not frames:
        raise BrokenVideo(path, "it has 0 frames")
    return VideoInfo(frames, height, width, fps)


def read_frames(path: Path | str, indices: Sequence[int], reader: Reader = "pyav") -> np.ndarray:
    """Read the frames `indices`, counted from 0 in presentation order: uint8 (T, H, W, 3) RGB, in the order asked.

    Raises BrokenVideo when the file cannot be decoded or has no such frame, ValueError when no frame is asked for.
    """
    if len(indices) == 0:
        raise ValueError(f"no frame of {path} was asked for")
    if not Path(path).is_file():
        raise BrokenVideo(path, "no such file")
    if HAS_DECORD:
        with suppress(RuntimeError):  # broken, or filmed sideways, which decord 0.6 cannot read: PyAV has the last word
            return _read_decord(path, indices)
    return _read_pyav(path, indices)


def _read_decord(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    # Imported at the first read and not above: MindSpore aborts the process if decord was loaded before it.
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        _check_indices(path, indices, len(reader))
        return reader.get_batch(list(indices)).asnumpy()
    except decord.DECORDError as error:
        raise RuntimeError(f"{path}: {error}") from None


def _read_pyav(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Decode from the start up to the last frame asked for: exact for any file, timestamps are never trusted."""
    missing, images, count = set(indices), {}, 0
    with _frames_of(path) as (_, decoded):
        for frame in decoded:
            if count in missing:
                images[count] = _upright(frame)
                missing.remove(count)
            count += 1
            if not missing:
                break
    _check_indices(path, indices, count)
    return np.stack([images[index] for index in indices])


def _check_indices(path: Path | str, indices: Sequence[int], frames: int) -> None:
    for index in indices:
        if not 0 <= index < frames:
            raise BrokenVideo(path, f"it has {frames} frames: there is no frame {index}")


@contextmanager
def _frames_of(path: Path | str) -> Iterator[tuple[av.VideoStream, Iterator[av.VideoFrame]]]:
    """Open the first video stream of `path` and its frames in presentation order; decoding errors: BrokenVideo."""
    if not Path(path).is_file():
        raise BrokenVideo(path, "no such file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BrokenVideo(path, "it has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield stream, container.decode(stream)
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(path, error) from error


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB (H, W, 3) turned the way a player shows it: telephones film sideways and store the turn as metadata."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    """Height and width as shown."""
    return (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)


def write_video(path: Path | str, frames: np.ndarray, fps: float, codec: Codec = "libx264") -> None:
    """Encode uint8 (T, H, W, 3) RGB at `fps`, 4:2:0; the same frames always give the same bytes.

    `libx264` (mp4, mov, mkv) plays in a browser and starts before it is downloaded; `mpeg4` is the Xvid of UCF-101's
    avi files. Raises ValueError for another codec, other frames, or an odd size, which 4:2:0 cannot hold.
    """
    if codec not in ENCODERS:
        raise ValueError(f"codec {codec!r} is not one of {sorted(ENCODERS)}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"{path}: frames must be uint8 (T, H, W, 3) with T > 0, not {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: {width}x{height} is odd; H.264 and Xvid need even width and height")
    # bitexact: the file names no library version and no time of writing
    muxer = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if Path(path).suffix in {".mp4", ".mov"} else {})
    with replacing(path) as temporary, av.open(str(temporary), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4" and Path(path).suffix == ".avi":
            stream.codec_context.codec_tag = "XVID"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_image(path: Path | str, frame: np.ndarray) -> None:
    """Save uint8 (H, W, 3) RGB in the format the suffix names (.png: lossless)."""
    with replacing(path) as temporary:
        Image.fromarray(frame).save(temporary)
