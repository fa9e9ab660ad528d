"""A clip in the format that its path's suffix names: mp4, gif, png, or without a suffix a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from moviegen.config import ConfigError
from moviegen.data.videos import write_image, write_video
from moviegen.runs.files import replacing

Writer = Callable[[Path, np.ndarray, float], None]


def clip_writer(path: Path, num_frames: int) -> Writer:
    """What writes a clip, uint8 (T, H, W, 3), to `path` at a number of frames a second.

    Raises:
        ConfigError: no format here has this suffix, or it cannot hold so many frames.
    """
    writers: dict[str, Writer] = {".mp4": write_video, ".gif": _write_gif, ".png": _write_png, "": _write_folder}
    if path.suffix not in writers:
        raise ConfigError(
            f"{path}: {path.suffix} is not one of .mp4, .gif, .png; a name without a suffix is a folder of images"
        )
    if path.suffix == ".png" and num_frames > 1:
        raise ConfigError(f"{path}: a .png holds one frame, not {num_frames}; name a folder, without a suffix")
    return writers[path.suffix]


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    first, *others = map(Image.fromarray, frames)
    duration = max(1, round(100 / fps)) * 10  # milliseconds; a GIF counts hundredths of a second
    with replacing(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=duration, loop=0)


def _write_png(path: Path, frames: np.ndarray, fps: float) -> None:
    write_image(path, frames[0])


def _write_folder(path: Path, frames: np.ndarray, fps: float) -> None:
    for longer in path.glob("frame-*.png"):  # of a clip that was here before
        longer.unlink()
    for number, frame in enumerate(frames):
        write_image(path / f"frame-{number:04d}.png", frame)
