"""Frames as arrays: resized, cropped, scaled, and which of a clip's are taken.

T frames, H rows, W columns: decoded frames are uint8 (T, H, W, 3) RGB, what models see is float32 (3, T, H, W) in
[-1, 1].
"""

import numpy as np
from PIL import Image

from moviegen.config import ConfigError


def resize_and_crop(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale uint8 (T, H, W, 3) to just cover height x width, keep the centre: float32 (3, T, height, width), [-1, 1].

    The aspect ratio is kept; a clip that already has the size passes unchanged.
    """
    return _resample(frames, height, width, _cover(frames, height, width), 0.5, 0.5)


def random_resized_crop(frames: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Crop at a random position and a scale between just-covering and native pixels, the same in every frame.

    uint8 (T, H, W, 3) -> float32 (3, T, height, width) in [-1, 1]. Never scales up more than covering needs.
    """
    cover = _cover(frames, height, width)
    return _resample(frames, height, width, rng.uniform(cover, max(cover, 1.0)), rng.random(), rng.random())


def _cover(frames: np.ndarray, height: int, width: int) -> float:
    """The smallest scale at which the frames cover height x width."""
    return max(height / frames.shape[1], width / frames.shape[2])


def _resample(frames: np.ndarray, height: int, width: int, scale: float, x: float, y: float) -> np.ndarray:
    """Take height x width pixels at `scale`; x, y in [0, 1] place the window from left/top to right/bottom."""
    rows, columns = min(height / scale, frames.shape[1]), min(width / scale, frames.shape[2])
    left, top = x * (frames.shape[2] - columns), y * (frames.shape[1] - rows)
    box = (left, top, left + columns, top + rows)
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box) for frame in frames]
    video = np.stack([np.asarray(image) for image in resized]).transpose(3, 0, 1, 2).astype(np.float32)
    return np.ascontiguousarray(video / np.float32(127.5) - np.float32(1))


def to_uint8(video: np.ndarray) -> np.ndarray:
    """float (3, T, H, W) in [-1, 1], clipped and rounded -> uint8 (T, H, W, 3); the inverse of reading.

    Raises:
        ConfigError: a value is no number: what made it would be shown, and scored, as black.
    """
    if np.isnan(video).any():
        raise ConfigError(
            "the autoencoder returned values that are not numbers: its weights have diverged or are damaged; train it "
            "again, with a lower learning rate, or name other weights"
        )
    return np.rint((np.clip(video, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 3, 0)


def clip_indices(num_frames: int, length: int, stride: int = 1, rng: np.random.Generator | None = None) -> list[int]:
    """`length` frame numbers, `stride` apart: the centre of the clip, or a random window with `rng`.

    Raises ValueError when the clip has fewer frames than the window spans.
    """
    span = (length - 1) * stride + 1
    if num_frames < span:
        raise ValueError(f"a clip of {num_frames} frames is too short: {length} frames {stride} apart need {span}")
    spare = num_frames - span
    start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    return list(range(start, start + span, stride))
