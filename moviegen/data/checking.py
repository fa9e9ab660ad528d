"""Which clips are sound: every file is decoded and measured once."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from moviegen.data.clips import Clip
from moviegen.data.videos import BrokenVideo, VideoInfo, probe


def check_clips(
    clips: Sequence[Clip], min_frames: int, progress: bool = False
) -> tuple[list[Clip], list[tuple[Path, str]]]:
    """Measure every clip: (the good ones with frames, height, width and fps filled, [(path, reason)] of the others).

    Broken files and clips of fewer than `min_frames` frames are set aside, never raised.
    """
    paths = dict.fromkeys(clip.path for clip in clips)  # each file once, however many captions it has
    measured = {path: _measure(path, min_frames) for path in tqdm(paths, "checking", unit="clip", disable=not progress)}
    good = [replace(clip, **asdict(info)) for clip in clips if isinstance(info := measured[clip.path], VideoInfo)]
    return good, [(path, reason) for path, reason in measured.items() if isinstance(reason, str)]


def _measure(path: Path, min_frames: int) -> VideoInfo | str:
    try:
        info = probe(path)
    except BrokenVideo as error:
        return error.reason
    return info if info.frames >= min_frames else f"{info.frames} frames, the recipe needs {min_frames}"
