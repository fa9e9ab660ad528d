"""Clips whose frames carry their number: bars of light, one a bit."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 48, 128
BAR, DARK, LIGHT = 16, 40, 220


def picture(number: int) -> np.ndarray:
    """uint8 (48, 128, 3): bar b is light where bit b of the number is set, and a patch moves."""
    frame = np.full((HEIGHT, WIDTH, 3), DARK, np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            frame[8:-16, bit * BAR : bit * BAR + 14] = LIGHT
    left = 3 * number % 100
    frame[-12:, left : left + 20] = 130
    return frame


def number(frame: np.ndarray) -> int:
    """The number that a (48, 128, 3) frame carries."""
    return sum(int(frame[20, bit * BAR + 7].mean() > 130) << bit for bit in range(8))


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that (T, 48, 128, 3) frames carry."""
    return [number(frame) for frame in frames]


def write(
    path: Path,
    frames: int = 60,
    codec: str = "libx264",
    container: str | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    times: Callable[[int], int] | None = None,
    unit: Fraction = Fraction(1, 25),
    keep: Callable[[int], bool] = lambda packet: True,
) -> Path:
    """A numbered clip of 25 frames a second, or of frames shown at `times` units; without the packets not kept."""
    packets = 0
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=1 / unit, options={"threads": "1"} | (options or {}))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        stream.codec_context.gop_size = gop
        for index in [*range(frames), None]:
            frame = None
            if index is not None:
                frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
                frame.pts, frame.time_base = times(index) if times else index, unit
            for packet in stream.encode(frame):
                if keep(packets):
                    output.mux(packet)
                packets += 1
    return path


def x264(**settings: int) -> dict[str, str]:
    """Options of libx264: key frames where the settings say and nowhere else."""
    given = {"scenecut": 0, "keyint": 12} | settings
    return {"x264-params": ":".join(f"{name.replace('_', '-')}={value}" for name, value in given.items())}
