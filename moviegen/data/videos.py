"""One video file: probe, read, write.

Frames are uint8 (T, H, W, 3) RGB as a player shows them: T frames, H rows, W columns.
"""

import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from moviegen.data import proofs, readers
from moviegen.data.readers import HAS_DECORD, Reader
from moviegen.data.streams import BrokenVideo, timeline
from moviegen.runs.files import replacing

Codec = Literal["libx264", "mpeg4"]

# Frames decoded for each that is wanted, from which on decord takes about as long as PyAV: what it is slower at
# is opening files and making pictures (docs/notes.md).
SPARSE = 4

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


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` measures.

    Decoded frames, their size in square pixels as shown, frames a second by their times (0 when these are not stated),
    and the fastest reader that is exact, which depends on the machine too: it is not compared.
    """

    frames: int
    height: int
    width: int
    fps: float
    reader: Reader = field(default="counted", compare=False)


def probe(path: Path | str) -> VideoInfo:
    """Decode the whole of `path`, measure it, and prove which reader is exact for it.

    Headers lie (Matroska states no frame count, half-copied files state too many, damage inside shows only when it is
    decoded), so every frame is decoded, and once more after seeking, or where that is not exact from the start: once
    per data set.

    Raises BrokenVideo when the file is missing, is not a video, holds no frame, has a damaged frame or one of another
    size than the first, is smaller or larger than any clip should be, or cannot be shown right.
    """
    line = timeline(path)
    decoded = proofs.decode(path, line)
    height, width = decoded.size
    reader = proofs.fastest_exact_reader(path, line, decoded)
    if reader == "counted" and not proofs.repeats(path, decoded):  # the others were decoded twice to be proven
        raise BrokenVideo(path, "its frames come out otherwise when they are decoded again: it is damaged")
    return VideoInfo(len(decoded.times), height, width, proofs.frame_rate(decoded), reader)


def read_frames(path: Path | str, indices: Sequence[int], reader: Reader = "counted") -> np.ndarray:
    """Read the frames `indices`, counted from 0 in presentation order: uint8 (T, H, W, 3) RGB, in the order asked.

    `reader` is what `probe` found exact for this file; what it cannot find is counted from the start.

    Raises BrokenVideo when the file cannot be decoded or has no such frame, ValueError when no frame is asked for.
    """
    if len(indices) == 0:
        raise ValueError(f"no frame of {path} was asked for")
    numbers = sorted(set(indices))
    images = dict(zip(numbers, frames_of(path, numbers, reader), strict=True))
    return np.stack([images[index] for index in indices])


def frames_of(path: Path | str, numbers: Sequence[int], reader: Reader = "counted") -> Iterator[np.ndarray]:
    """`read_frames` of ascending numbers, one frame (H, W, 3) after the other, each as soon as it is decoded."""
    found = 0
    with suppress(BrokenVideo, RuntimeError):  # the file is gone or has changed: counting says what is wrong with it
        for picture in _sought(path, numbers, reader):
            found += 1
            yield picture
    if found < len(numbers):
        yield from readers.by_counting(path, numbers[found:])


def _sought(path: Path | str, numbers: Sequence[int], reader: Reader) -> Iterator[np.ndarray]:
    """Those of `frames_of` that a seek finds, by PyAV where decord, as exact, would be slower."""
    if reader == "counted" or numbers[0] < 0:  # decord counts negative ones from the end
        return iter(())
    is_sparse = numbers[-1] - numbers[0] >= SPARSE * len(numbers)
    return (readers.by_decord if reader == "decord" and HAS_DECORD and is_sparse else readers.by_seeking)(path, numbers)


def read_windows(
    path: Path | str, windows: Iterable[Sequence[int]], reader: Reader = "counted"
) -> Iterator[Iterator[np.ndarray]]:
    """`frames_of` each of `windows`, numbers that ascend from the first window to the last; taken one after the other.

    The file is decoded once. PyAV's frames and their side data hold each other, so between windows Python is told to
    look for what nobody else holds: of a film it would be gigabytes before it does so by itself.
    """
    windows = list(windows)
    frames = frames_of(path, list(itertools.chain.from_iterable(windows)), reader)
    for number, window in enumerate(windows):
        if number:
            gc.collect()
        yield itertools.islice(frames, len(window))


def write_video(path: Path | str, frames: Iterable[np.ndarray], fps: float, codec: Codec = "libx264") -> None:
    """Encode frames, uint8 (H, W, 3) RGB, as they come, at `fps`, 4:2:0; the same frames always give the same bytes.

    `libx264` (mp4, mov, mkv) plays in a browser and starts before it is downloaded; `mpeg4` is the Xvid of UCF-101's
    avi files. Raises ValueError for another codec, other frames or none, or an odd size, which 4:2:0 cannot hold.
    """
    if codec not in ENCODERS:
        raise ValueError(f"codec {codec!r} is not one of {sorted(ENCODERS)}")
    frames = iter(frames)
    first = next(frames, None)
    if first is None or first.ndim != 3 or first.shape[-1] != 3:
        found = "none" if first is None else f"{first.dtype} {first.shape}"
        raise ValueError(f"{path}: frames must be uint8 (H, W, 3), at least one of them, not {found}")
    height, width, _ = first.shape
    if height % 2 or width % 2:
        raise ValueError(f"{path}: {width}x{height} is odd; H.264 and Xvid need even width and height")
    # bitexact: the file names no library version and no time of writing
    muxer = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if Path(path).suffix in {".mp4", ".mov"} else {})
    with replacing(path) as temporary, av.open(str(temporary), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # what swscale makes of RGB; players take BT.709 for what is large and does not say
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
        if codec == "mpeg4" and Path(path).suffix == ".avi":
            stream.codec_context.codec_tag = "XVID"
        for frame in itertools.chain([first], frames):
            if frame.dtype != np.uint8 or frame.shape != first.shape:
                raise ValueError(f"{path}: frames must be uint8 {first.shape}, not {frame.dtype} {frame.shape}")
            rgb = av.VideoFrame.from_ndarray(frame, format="rgb24")
            # one thread: swscale's would write over each other's rows now and then
            container.mux(stream.encode(rgb.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode())


def write_image(path: Path | str, frame: np.ndarray) -> None:
    """Save uint8 (H, W, 3) RGB in the format the suffix names (.png: lossless)."""
    with replacing(path) as temporary:
        Image.fromarray(frame).save(temporary)
