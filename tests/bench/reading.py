"""Reading a training clip (decode, resize, crop, scale) beside bare decoding of the same frames.

Bare: what a user of decord or PyAV writes to have those frames in RGB, whichever of the two is faster, and also where
decord gives other frames than were asked for: it goes by times of its own.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from moviegen.data import clips, crops, pixels, samples, videos
from tests.bench import rows

AT_MOST = 1.3
FRAMES, SIZE = 16, (144, 240)  # of a training clip at tiny's stage 3
UCF = (320, 240), 186  # the size of UCF-101's clips, and how many frames they have


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        with tqdm(total=len(files) * repetitions, desc="reading", unit="round") as progress:
            return [compare(name, path, repetitions, progress) for name, path in files.items()]


def make_files(folder: Path) -> dict[str, Path]:
    """Two of the sample set's clips, and one as long as those of UCF-101."""
    made = {}
    for shot in (samples.plan_shots(folder)[0], samples.train_shots(folder)[0]):
        shot.path.parent.mkdir(parents=True, exist_ok=True)
        videos.write_video(shot.path, samples.render(shot, 0), samples.FPS, samples.CODECS[shot.path.suffix])
        made[f"sample clip {shot.size[0]}x{shot.size[1]} {shot.path.suffix[1:]}"] = shot.path
    (width, height), frames = UCF
    film = samples.render(replace(samples.plan_shots(folder)[0], size=(width, height)), seed=1)
    there_and_back = np.concatenate((film, film[::-1]))
    long = np.concatenate([there_and_back] * (frames // len(there_and_back) + 1))[:frames]
    path = folder / "ucf.avi"
    videos.write_video(path, long, 25, "mpeg4")
    return made | {f"{frames} frames {width}x{height} avi": path}


def compare(name: str, path: Path, repetitions: int, progress: tqdm) -> dict[str, Any]:
    """The centre frames of a file, by each in turn."""
    info = videos.probe(path)
    numbers = pixels.clip_indices(info.frames, FRAMES)
    clip = clips.Clip(path, frames=info.frames, reader=info.reader)
    subjects: dict[str, Callable[[], Any]] = {
        "ours": lambda: crops.centre_view(clip, FRAMES, *SIZE),
        "PyAV": lambda: by_pyav(path, numbers),
    }
    if importlib.util.find_spec("decord"):  # no aarch64 wheel
        subjects["decord"] = lambda: by_decord(path, numbers)
    times: dict[str, list[float]] = {subject: [] for subject in subjects}
    for work in subjects.values():
        work()
    for _ in range(repetitions):
        for subject, work in subjects.items():
            started = time.perf_counter()
            work()
            times[subject].append(1e3 * (time.perf_counter() - started))
        progress.update()
    peer = min(times.keys() - {"ours"}, key=lambda subject: statistics.median(times[subject]))
    task = f"reading {FRAMES} frames, {name}"
    return rows.compared(task, f"{peer}, decoding alone", times["ours"], times[peer], AT_MOST) | {"calls_ms": times}


def by_decord(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """uint8 (T, H, W, 3)."""
    import decord  # here: it may not be there

    return decord.VideoReader(str(path), num_threads=1).get_batch(list(numbers)).asnumpy()


def by_pyav(path: Path, numbers: Sequence[int]) -> np.ndarray:
    """uint8 (T, H, W, 3), from the key frame before the first of `numbers`, which are consecutive."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = 1 / (stream.average_rate * stream.time_base)  # of the stream's clock, from a frame to the next
        first = (stream.start_time or 0) + int(numbers[0] * ticks)
        container.seek(first, stream=stream)
        images: list[np.ndarray] = []
        for frame in container.decode(stream):
            if frame.pts >= first and len(images) < len(numbers):
                images.append(frame.to_ndarray(format="rgb24"))
            if len(images) == len(numbers):
                break
    return np.stack(images)
