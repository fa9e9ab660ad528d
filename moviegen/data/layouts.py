"""What a data folder holds: class folders, lists of captions, or just videos; what is in neither is named.

Every file comes from one walk over the folder (`runs.folders`), the same that the run's fingerprint is made of.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from moviegen.data.captions import COLUMNS, FileFinder, index_mixkit
from moviegen.data.clips import Clip
from moviegen.data.datasets import MIXKIT, index_ucf101, one_class
from moviegen.data.tables import has_columns
from moviegen.runs.folders import VIDEO_SUFFIXES, is_video, listed, printable, walk

LAYOUTS = "a UCF-101 folder of <Class>/v_<Class>_gXX_cYY.avi, or a mixkit folder of videos with video_caption_train.csv"
TRAIN_LIST, VAL_LIST = "video_caption_train.csv", "video_caption_val.csv"
UCF101 = re.compile(r"ucf[-_ ]?101", re.IGNORECASE)
TRAINING, HELD_OUT = {"train", "training"}, {"val", "valid", "validation", "test", "testing"}
NO_CLASS = TRAINING | HELD_OUT | {"clips", "data", "video", "videos"}  # what a folder is called that is no class
NOTES = {"", ".md", ".txt"}  # what people read, which nobody takes for a clip
ARCHIVES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"}


def find_layout(root: Path | str) -> dict[str, list[Clip]]:
    """Index a data folder: the lists `ucf101`, `ucf101_test`, `train` and `val` (the last two captioned).

    The held-out lists are empty where the folder does not say what is held out: after `check_clips`, hold one in five
    out with `split_ucf101`.

    - The one folder called UCF-101 (or UCF101, at any depth), or else `root` when its subfolders hold videos: UCF-101.
      Where they are `train` and `val` or `test`, the classes lie in those. `root/mixkit` is never a class.
    - `root/video_caption_train.csv`, or the one of that name below, or else the only CSV in `root` with the columns
      `video` and `caption`: mixkit, with the videos in `mixkit/` beside it or else beside it;
      `video_caption_val.csv` beside it: its validation list.
    - Only loose videos in `root` (or in `train` and `val`): UCF-101 of one class, captioned by their file names.
    - The other layout stands in for a missing one, with a warning: captioned by class, or one class of captioned clips.

    A folder that holds nothing but another one, as archives unpack, counts as that one. Files that are left out are
    counted and named in a warning. Raises FileNotFoundError without `root`, ValueError when no layout is found, and
    what the two indexes raise.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no data folder {root}; expected {LAYOUTS}")
    files = _writable_names(root)
    if not any(map(is_video, files)):
        raise ValueError(f"no videos found in {root}{_what_else(files)}; expected {LAYOUTS}")
    top = _top(root, files)
    train, val, lists = _find_mixkit(root, top, files)
    videos = [path for path in files if is_video(path)]
    ucf101, test = _find_ucf101(root, top, videos)
    loose = not ucf101
    if loose and not train:
        ucf101, test = _find_loose(root, top, videos)
    if not (ucf101 or train):
        raise ValueError(f"no videos found where they are looked for in {root}, but {videos[0]}; expected {LAYOUTS}")
    if not train:
        warnings.warn(f"{root} holds no captions: file or class names stand in for them", stacklevel=2)
        train, val = ([replace(clip, caption=_caption(clip, loose)) for clip in clips] for clips in (ucf101, test))
    if not ucf101:
        warnings.warn(f"{root} holds no UCF-101 classes: the captioned clips stand in as one class", stacklevel=2)
        ucf101 = train + val
    _name_what_is_left(root, files, {*lists, *(clip.path for clip in (*ucf101, *test, *train, *val))})
    return {"ucf101": ucf101, "ucf101_test": test, "train": train, "val": val}


def _writable_names(root: Path) -> list[Path]:
    """The files of a folder whose names can be written down; warns of others."""
    names = {path: path.relative_to(root) for path in walk(root)}
    if unwritable := [printable(name) for name in names.values() if printable(name) != str(name)]:
        others = f"{len(unwritable)} files are left out, as their names are not UTF-8: rename {listed(unwritable)}"
        warnings.warn(f"{root}: {others}", stacklevel=3)
    return [path for path, name in names.items() if printable(name) == str(name)]


def _top(root: Path, files: Sequence[Path]) -> Path:
    """The folder that holds the data: `root`, or one below it with nothing but folders around."""
    files = [path for path in files if is_video(path) or path.suffix.lower() == ".csv"]
    while True:
        inside = {root / _first(path, root) for path in files}
        only = inside.pop()
        if inside or only in files or only.name == MIXKIT or UCF101.fullmatch(only.name):
            return root
        if any(path.parent == only for path in files) and only.name.casefold() not in NO_CLASS:
            return root  # a class, or the folder of a list
        root = only


def _find_ucf101(root: Path, top: Path, videos: Sequence[Path]) -> tuple[list[Clip], list[Clip]]:
    """(training or all, held out): nothing where no folder holds folders of videos."""
    folder = _ucf101_folder(root, top, videos)
    if folder:
        return _both(_divided(folder, videos), lambda part: index_ucf101(part, videos))
    classes = {path.parent.parent for path in videos if path.parent.name != MIXKIT}
    return _both(_divided(top, videos), lambda part: index_ucf101(part, videos) if part in classes else [])


def _ucf101_folder(root: Path, top: Path, videos: Sequence[Path]) -> Path | None:
    """The folder called UCF-101, the inner one of two: its archives unpack into UCF101/UCF-101."""
    if (top / "UCF-101").is_dir():
        return top / "UCF-101"
    parents = {path.parent for path in videos}
    folders = {folder for parent in parents for folder in (parent, *parent.parents) if root in folder.parents}
    matches = {folder for folder in folders if UCF101.fullmatch(folder.name)}
    inner = {folder for folder in matches if not any(folder in match.parents for match in matches)}
    if len(inner) > 1:
        raise ValueError(f"{root} has several folders of UCF-101, {listed(sorted(map(str, inner)))}: give one of them")
    return inner.pop() if inner else None


def _find_loose(root: Path, top: Path, videos: Sequence[Path]) -> tuple[list[Clip], list[Clip]]:
    """(training or all, held out) of videos that lie in no class folder, as one class."""
    label = root.resolve().name
    return _both(_divided(top, videos), lambda part: one_class([path for path in videos if path.parent == part], label))


def _divided(folder: Path, videos: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(`train`, and `val` and `test`) in a folder that has both, otherwise (itself, none)."""
    parents = {path.parent for path in videos}
    inside = {folder / _first(parent, folder) for parent in parents if folder in parent.parents}
    training, held_out = (
        sorted(part for part in inside if part.name.casefold() in names) for names in (TRAINING, HELD_OUT)
    )
    return (training, held_out) if training and held_out else ([folder], [])


def _both(parts: tuple[list[Path], list[Path]], index: Callable[[Path], list[Clip]]) -> tuple[list[Clip], list[Clip]]:
    training, held_out = ([clip for part in side for clip in index(part)] for side in parts)
    return training, held_out


def _find_mixkit(root: Path, top: Path, files: Sequence[Path]) -> tuple[list[Clip], list[Clip], set[Path]]:
    """(training, validation, the lists they are in)."""
    train = _train_list(root, top, files)
    if not train:
        return [], [], set()
    folders = dict.fromkeys((train.parent / MIXKIT, train.parent, root))
    finder = FileFinder(files, [folder for folder in folders if folder.is_dir()])
    lists = [train, *(path for path in files if path == train.with_name(VAL_LIST))]
    groups: dict[Path, int] = {}
    training, *rest = (index_mixkit(path, finder, groups) for path in lists)
    held_out = rest[0] if rest else []
    if shared := sorted({clip.path for clip in training} & {clip.path for clip in held_out}):
        names = listed([str(path.relative_to(root)) for path in shared])
        warnings.warn(f"{root}: {len(shared)} videos are in both lists, so are no held-out ones: {names}", stacklevel=3)
    return training, held_out, set(lists)


def _train_list(root: Path, top: Path, files: Sequence[Path]) -> Path | None:
    """The CSV file that lists the captions."""
    lists = [path for path in files if path.name == TRAIN_LIST]
    if top / TRAIN_LIST in lists:
        return top / TRAIN_LIST
    if len(lists) > 1:
        raise ValueError(f"{root} has several files {TRAIN_LIST}, {listed([*map(str, lists)])}: give one's folder")
    if lists:
        return lists[0]
    tables = [path for path in files if path.parent == top and path.suffix.lower() == ".csv" and path.name != VAL_LIST]
    captioned, loose = (top / MIXKIT).is_dir(), any(path.parent == top and is_video(path) for path in files)
    alone = len(tables) == 1 and (captioned or loose)
    fitting = tables if alone else [path for path in tables if has_columns(path, COLUMNS)]
    if len(fitting) == 1:
        return fitting[0]
    if captioned or fitting or (loose and tables):
        raise ValueError(
            f"{top} has {len(tables)} CSV files and none is {TRAIN_LIST}, which lists the captions: give that "
            f"name to the one that does"
        )
    return None


def _name_what_is_left(root: Path, files: Sequence[Path], used: set[Path]) -> None:
    """Warns of the files that are in no layout."""
    left = [path for path in files if path not in used]
    videos = [path for path in left if is_video(path)]
    others = [path for path in left if path.suffix.lower() not in VIDEO_SUFFIXES.union(NOTES)]
    parts = []
    if videos:
        names = listed([str(path.relative_to(root)) for path in videos])
        parts.append(f"{len(videos)} videos that lie in no class folder and in no list ({names})")
    if others:
        parts.append(f"{len(others)} other files ({_counted(others)})")
    if parts:
        warnings.warn(f"{root}: left out are {' and '.join(parts)}", stacklevel=3)


def _what_else(files: Sequence[Path]) -> str:
    """What a folder without videos holds."""
    if not files:
        return ", which is empty"
    archives = [path.name for path in files if path.suffix.lower() in ARCHIVES]
    return f", but {_counted(files)}" + (f": unpack {listed(archives)} first" if archives else "")


def _counted(files: Sequence[Path]) -> str:
    """`3 .txt, 1 .jpg`"""
    suffixes = Counter(path.suffix.lower() or "without a suffix" for path in files)
    return ", ".join(f"{number} {suffix}" for suffix, number in suffixes.most_common())


def _first(path: Path, folder: Path) -> str:
    """The name in `folder` below which, or as which, `path` lies."""
    return path.parts[len(folder.parts)]


def _caption(clip: Clip, loose: bool) -> str:
    """`ApplyEyeMakeup` and `apply_eye-makeup` -> `apply eye makeup`, of the file's name or the class's."""
    name = unicodedata.normalize("NFC", clip.path.stem if loose else clip.label)
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).lower().strip()
