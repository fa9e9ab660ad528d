"""Frames as arrays: resized, cropped, scaled, and which of a clip's are taken.

T frames, H rows, W columns: decoded frames are uint8 (T, H, W, 3) RGB, what models see is float32 (3, T, H, W) in
[-1, 1].
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from moviegen.config import ConfigError
from moviegen.device.limits import cores

Box = tuple[float, float, float, float]  # left, top, right, bottom
Window = Callable[[float], tuple[float, float, float]]
AHEAD = 8  # frames that are decoded before the first of them is resized


def cover(frames: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """Scale frames, uint8 (H, W, 3), to just cover height x width, keep the centre: uint8 (height, width, 3) each.

    The aspect ratio is kept; a clip that already has the size passes unchanged. No more than a few frames are held.
    """
    return _views(frames, height, width, lambda scale: (scale, 0.5, 0.5))


def resize_and_crop(frames: Iterable[np.ndarray], height: int, width: int) -> np.ndarray:
    """`cover`, as models see it: float32 (3, T, height, width) in [-1, 1]."""
    return to_float(list(cover(frames, height, width)))


def random_resized_crop(frames: Iterable[np.ndarray], height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Crop at a random position and a scale between just-covering and native pixels, the same in every frame.

    uint8 (H, W, 3) of each -> float32 (3, T, height, width) in [-1, 1]. Never scales up more than covering needs.
    """

    def window(cover: float) -> tuple[float, float, float]:
        return rng.uniform(cover, max(cover, 1.0)), rng.random(), rng.random()

    return to_float(list(_views(frames, height, width, window)))


def _views(frames: Iterable[np.ndarray], height: int, width: int, window: Window) -> Iterator[np.ndarray]:
    """height x width pixels of each frame, resized in other threads while the next are decoded.

    Args:
        window: of the smallest scale at which the frames cover height x width: the scale, and x and y in [0, 1], which
            place the window from left / top to right / bottom.
    """
    box: Box | None = None
    views: deque[Future[np.ndarray]] = deque()
    for frame in frames:
        box = box or _box(frame.shape, height, width, window)
        views.append(_pool().submit(_view, frame, height, width, box))
        if len(views) > AHEAD:
            yield views.popleft().result()
    while views:
        yield views.popleft().result()


def to_float(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames, uint8 (H, W, 3) each, as models see them: float32 (3, T, H, W) in [-1, 1]."""
    height, width, _ = frames[0].shape
    video = np.empty((3, len(frames), height, width), np.float32)
    for index, frame in enumerate(frames):  # frame by frame, while it is in the cache
        scaled = np.divide(frame.transpose(2, 0, 1), np.float32(127.5), video[:, index], dtype=np.float32)
        scaled -= np.float32(1)
    return video


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that resize; Pillow lets others compute meanwhile."""
    return ThreadPoolExecutor(max(1, round(cores())))


def _box(shape: tuple[int, ...], height: int, width: int, window: Window) -> Box:
    """Left, top, right, bottom of the window in a frame of `shape` (H, W, 3)."""
    scale, x, y = window(max(height / shape[0], width / shape[1]))
    rows, columns = min(height / scale, shape[0]), min(width / scale, shape[1])
    left, top = x * (shape[1] - columns), y * (shape[0] - rows)
    return left, top, left + columns, top + rows


def _view(frame: np.ndarray, height: int, width: int, box: Box) -> np.ndarray:
    """The pixels in the box of a frame (H, W, 3): uint8 (height, width, 3)."""
    packed = np.ascontiguousarray(frame)  # decoders fill rows up; Pillow takes 2 ms to pack a picture of 640x360
    return np.asarray(Image.fromarray(packed).resize((width, height), Image.Resampling.BICUBIC, box))


def tiles_of(frames: Sequence[np.ndarray]) -> Callable[[slice, slice], np.ndarray]:
    """Frames, uint8 (H, W, 3) each, of which rows and columns can be had: float32 (1, 3, T, h, w) in [-1, 1]."""
    return lambda rows, columns: to_float([frame[rows, columns] for frame in frames])[None]


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
