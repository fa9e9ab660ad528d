"""Which clips there are: index a folder, split, and order the clips for training.

Two layouts: UCF-101 (`UCF-101/<Class>/v_<Class>_gXX_cYY.avi`; clips of one group gXX share a source video) and mixkit
(a folder of videos and a CSV `video,caption`). Order is a pure function of (seed, step): nothing to save for a resume.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from moviegen.data.clips import Clip
from moviegen.data.tables import read_rows

SUFFIXES = {".avi", ".mp4", ".mkv", ".mov"}
UCF_NAME = re.compile(r"v_\w+_g(?P<group>\d+)_c\d+")
LAYOUTS = "a UCF-101 folder of <Class>/v_<Class>_gXX_cYY.avi, or a mixkit folder of videos with video_caption_train.csv"


def index_ucf101(folder: Path | str) -> list[Clip]:
    """The clips of `<folder>/<Class>/`, sorted by path, labelled by class folder.

    A file that is not named v_<Class>_gXX_cYY is a group of its own, numbered on from the class's last named group.
    Warns of a class folder without videos. Raises FileNotFoundError without the folder, ValueError without any clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected {folder}/<Class>/v_<Class>_gXX_cYY.avi")
    clips = []
    for class_folder in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        videos = _videos(class_folder)
        if not videos:
            warnings.warn(f"class folder {class_folder} holds no video", stacklevel=2)
        clips += _one_class(videos, class_folder.name)
    if not clips:
        raise ValueError(f"no video in {folder}; expected {folder}/<Class>/v_<Class>_gXX_cYY.avi")
    return clips


def _videos(folder: Path) -> list[Path]:
    """Video files in `folder` itself; names with a leading dot are files half written."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES)


def _one_class(videos: Sequence[Path], label: str) -> list[Clip]:
    named = [int(match["group"]) if (match := UCF_NAME.fullmatch(path.stem)) else None for path in videos]
    unnamed = count(max((group for group in named if group is not None), default=0) + 1)
    groups = [next(unnamed) if group is None else group for group in named]
    return [Clip(path, label=label, group=group) for path, group in zip(videos, groups, strict=True)]


def index_mixkit(folder: Path | str, csv_path: Path | str) -> list[Clip]:
    """The clips that `csv_path` (video,caption; relative to `folder`) lists; each video is a group of its own.

    Files that are missing are counted and named in a warning. Raises FileNotFoundError without the CSV, ValueError
    without its columns, without rows, or when every file is missing.
    """
    folder, rows = Path(folder), read_rows(Path(csv_path), {"video", "caption"})
    groups: dict[str, int] = {}  # several captions of one video stay together in a split
    clips = []
    for row in rows:
        group = groups.setdefault(row["video"], len(groups) + 1)
        clips.append(Clip(folder / row["video"], row["caption"], label="mixkit", group=group))
    missing = [clip.path.name for clip in clips if not clip.path.is_file()]
    if len(missing) == len(clips):
        raise ValueError(f"{folder} has none of the {len(clips)} videos that {csv_path} lists, such as {missing[0]}")
    if missing:
        warnings.warn(f"{csv_path}: {len(missing)} of {len(clips)} missing: {', '.join(missing)}", stacklevel=2)
    return [clip for clip in clips if clip.path.is_file()]


def split_ucf101(
    clips: Sequence[Clip], test_share: float = 0.2, seed: int = 0, by: Literal["group", "random"] = "group"
) -> tuple[list[Clip], list[Clip]]:
    """Hold out `test_share` of every class: (train, test), both in the order of `clips`.

    By group, a group is never divided, and, as in the official UCF-101 lists, the same group numbers are held out of
    every class. At least one group goes to each side; a class of one group is divided by clip, with a warning; a class
    of one clip is for training. Raises ValueError for fewer than two clips or a wrong option.
    """
    if len(clips) < 2:
        raise ValueError(f"cannot split {len(clips)} clip: training and test need at least one each")
    if not 0 < test_share < 1 or by not in ("group", "random"):
        raise ValueError(
            f"cannot split off {test_share} by {by!r}: a share lies in (0, 1), `by` is 'group' or 'random'"
        )
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


def find_layout(root: Path | str) -> dict[str, list[Clip]]:
    """Index a data folder: the lists `ucf101`, `train` and `val` (both captioned).

    `val` is empty without a validation CSV: after `check_clips`, hold one in five out with `split_ucf101(train)`.

    - `root/UCF-101`, or else `root` when its subfolders hold videos: UCF-101. `root/mixkit` is never a class.
    - `root/video_caption_train.csv`, or else the only CSV in `root`: mixkit, with the videos in `root/mixkit` or else
      in `root`; `root/video_caption_val.csv`: its validation list.
    - Only loose videos in `root`: UCF-101 of one class, captioned by their file names.
    - The other layout stands in for a missing one, with a warning: captioned by class, or one class of captioned clips.

    Raises FileNotFoundError without `root`, ValueError when no layout is found, and what the two indexes raise.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no data folder {root}; expected {LAYOUTS}")
    ucf101, train, val = _find_ucf101(root), *_find_mixkit(root)
    loose = [] if ucf101 or train else _one_class(_videos(root), root.resolve().name)
    if not (ucf101 or train or loose):
        raise ValueError(f"no videos found in {root}; expected {LAYOUTS}")
    if not train:
        warnings.warn(f"{root} holds no captions: file or class names stand in for them", stacklevel=2)
        train = [replace(clip, caption=_words(clip.label)) for clip in ucf101]
        train += [replace(clip, caption=_words(clip.path.stem)) for clip in loose]
    if not (ucf101 or loose):
        warnings.warn(f"{root} holds no UCF-101 classes: the captioned clips stand in as one class", stacklevel=2)
    return {"ucf101": ucf101 or loose or train + val, "train": train, "val": val}


def _find_ucf101(root: Path) -> list[Clip]:
    if (root / "UCF-101").is_dir():
        return index_ucf101(root / "UCF-101")
    classes = [path for path in root.iterdir() if path.is_dir() and path.name != "mixkit" and _videos(path)]
    return [clip for clip in index_ucf101(root) if clip.label != "mixkit"] if classes else []


def _find_mixkit(root: Path) -> tuple[list[Clip], list[Clip]]:
    folder = root / "mixkit" if (root / "mixkit").is_dir() else root
    train, val = root / "video_caption_train.csv", root / "video_caption_val.csv"
    if not train.is_file():
        others = sorted(path for path in root.glob("*.csv") if path != val)
        if folder == root and not (others and _videos(root)):
            return [], []
        if len(others) != 1:
            raise ValueError(f"{root} has {len(others)} CSV files and none is {train.name}, which lists the captions")
        train = others[0]
    return index_mixkit(folder, train), index_mixkit(folder, val) if val.is_file() else []


def _words(name: str) -> str:
    """`ApplyEyeMakeup` and `apply_eye-makeup` -> `apply eye makeup`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).lower().strip()


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
