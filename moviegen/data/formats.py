"""A clip in the format that its path's suffix names: mp4, gif, png, or without a suffix a folder of images."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from moviegen.config import ConfigError
from moviegen.data.videos import write_image, write_video
from moviegen.runs.files import replacing, shortened

Frames = Iterable[np.ndarray]  # uint8 (H, W, 3) each, as they come
Writer = Callable[[Path, Frames, float], None]


def clip_writer(path: Path, num_frames: int) -> Writer:
    """What writes a clip's frames, uint8 (H, W, 3) each, to `path` at a number of frames a second, as they come.

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


def _write_gif(path: Path, frames: Frames, fps: float) -> None:
    """Pillow holds a GIF's frames until the last is there, with a byte a pixel."""
    images = map(Image.fromarray, frames)
    duration = max(1, round(100 / fps)) * 10  # milliseconds; a GIF counts hundredths of a second
    with replacing(path) as temporary:
        next(images).save(temporary, save_all=True, append_images=images, duration=duration, loop=0)


def _write_png(path: Path, frames: Frames, fps: float) -> None:
    for frame in frames:  # the only one
        write_image(path, frame)


def _write_folder(path: Path, frames: Frames, fps: float) -> None:
    """A new folder is there whole or not at all; in one that was here before, only the images are others."""
    temporary = path.with_name(f".{shortened(path.name)}.{secrets.token_hex(4)}")
    try:
        for number, frame in enumerate(frames):
            write_image(temporary / f"frame-{number:04d}.png", frame)
        if path.is_dir():
            for former in path.glob("frame-*.png"):
                former.unlink()
            for image in temporary.iterdir():
                image.rename(path / image.name)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
