"""Classes of clips: index, split, and order them for training.

UCF-101 is `UCF-101/<Class>/v_<Class>_gXX_cYY.avi`; clips of one group gXX share a source video. Order is a pure
function of (seed, step): nothing to save for a resume.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from moviegen.data.clips import Clip
from moviegen.runs.folders import subfolders

UCF_NAME = re.compile(r"v_\w+_g(?P<group>\d+)_c\d+")
MIXKIT = "mixkit"  # the folder of captioned clips is never a class


def index_ucf101(folder: Path, videos: Iterable[Path]) -> list[Clip]:
    """Those of `videos` that lie in `<folder>/<Class>/`, sorted by path, labelled by class folder.

    A file that is not named v_<Class>_gXX_cYY is a group of its own, numbered on from the class's last named group.
    Warns of a class folder without videos. Raises FileNotFoundError without the folder, ValueError without any clip.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected {folder}/<Class>/v_<Class>_gXX_cYY.avi")
    members = defaultdict(list)
    for path in videos:
        members[path.parent].append(path)
    clips = []
    for class_folder in subfolders(folder):
        if class_folder.name == MIXKIT:
            continue
        if class_folder not in members:
            warnings.warn(f"class folder {class_folder} holds no video", stacklevel=2)
        clips += one_class(sorted(members[class_folder]), class_folder.name)
    if not clips:
        raise ValueError(f"no video in {folder}; expected {folder}/<Class>/v_<Class>_gXX_cYY.avi")
    return clips


def one_class(videos: Sequence[Path], label: str) -> list[Clip]:
    """The clips of one class; see `index_ucf101`."""
    named = [int(match["group"]) if (match := UCF_NAME.fullmatch(path.stem)) else None for path in videos]
    unnamed = count(max((group for group in named if group is not None), default=0) + 1)
    groups = [next(unnamed) if group is None else group for group in named]
    return [Clip(path, label=label, group=group) for path, group in zip(videos, groups, strict=True)]


def split_ucf101(
    clips: Sequence[Clip], test_share: float = 0.2, seed: int = 0, by: Literal["group", "random"] = "group"
) -> tuple[list[Clip], list[Clip]]:
    """Hold out `test_share` of every class: (train, test), both in the order of `clips`.

    By group, a group is never divided, and, as in the official UCF-101 lists, the same group numbers are held out of
    every class. At least one group goes to each side; a class of one group is divided by clip, with a warning; a class
    of one clip is for training. A single file is on both sides, with a warning. Raises ValueError without clips or for
    a wrong option.
    """
    if not clips:
        raise ValueError("cannot split 0 clips: training and test need at least one")
    if not 0 < test_share < 1 or by not in ("group", "random"):
        raise ValueError(
            f"cannot split off {test_share} by {by!r}: a share lies in (0, 1), `by` is 'group' or 'random'"
        )
    if len({clip.path for clip in clips}) == 1:
        warnings.warn(
            f"{clips[0].path.name} is the only clip: it is trained on and tested, so scores say nothing of unseen ones",
            stacklevel=2,
        )
        return list(clips), list(clips)
    classes: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        classes[clip.label].append(clip)
    test = {path for members in classes.values() for path in _held_out(members, test_share, seed, by)}
    test = test or _held_out(clips, test_share, seed, "random")  # every class is one clip: hold out classes
    return [clip for clip in clips if clip.path not in test], [clip for clip in clips if clip.path in test]


def _held_out(clips: Sequence[Clip], share: float, seed: int, by: str) -> set[Path]:
    """The files of one class to hold out."""
    by_group = by == "group" and len({clip.group for clip in clips}) > 1
    if by == "group" and not by_group and len({clip.path for clip in clips}) > 1:
        warnings.warn(f"class {clips[0].label!r} has a single group: it is divided by clip", stacklevel=3)
    units = sorted({clip.group if by_group else clip.path.name for clip in clips})
    # Classes of the same groups get the same shuffle, and so hold out the same group numbers.
    units = np.random.default_rng(seed).permutation(units).tolist()
    chosen = set(units[: min(max(1, round(share * len(units))), len(units) - 1)])
    return {clip.path for clip in clips if (clip.group if by_group else clip.path.name) in chosen}


def epoch_order(num_clips: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(num_clips), int64, given by seed and epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_clips)


def batch_indices(num_clips: int, batch_size: int, step: int, seed: int, rank: int = 0, world: int = 1) -> list[int]:
    """Which clips `rank` of `world` takes at `step`, `batch_size` of them.

    The ranks walk through epoch after epoch side by side: each clip comes once an epoch, and batches run on over the
    border of epochs. Raises ValueError when there is no clip.
    """
    if num_clips == 0:
        raise ValueError("cannot draw a batch: there are no clips")
    start = (step * world + rank) * batch_size
    places = [divmod(position, num_clips) for position in range(start, start + batch_size)]
    orders = {epoch: epoch_order(num_clips, seed, epoch) for epoch in {epoch for epoch, _ in places}}
    return [int(orders[epoch][place]) for epoch, place in places]
