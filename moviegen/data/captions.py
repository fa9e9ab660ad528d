"""Lists of captions: the clips that a CSV `video,caption` names, and where they lie in a data folder."""

import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from moviegen.data.clips import Clip
from moviegen.data.tables import numbered_rows
from moviegen.runs.folders import is_video, listed

COLUMNS = {"video", "caption"}
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)


class Places:
    """Finds the files of a data folder by what a table calls them.

    Nothing outside is ever found: a table may come from anywhere.

    Args:
        files: the folder's, as `runs.folders.walk` gives them.
        folders: what names in the table may be relative to, the likeliest first.
    """

    def __init__(self, files: Iterable[Path], folders: Sequence[Path]) -> None:
        self.folders = [os.path.abspath(folder) for folder in folders]
        self.known = {os.path.abspath(path): path for path in files}
        self.composed: dict[str, set[Path]] = defaultdict(set)  # macOS writes an accent apart from its letter
        self.named: dict[str, set[Path]] = defaultdict(set)
        for place, path in self.known.items():
            self.composed[_composed(place)].add(path)
            self.named[_composed(path.name)].add(path)

    def find(self, name: str) -> Path | None:
        """The file called `name` below one of the folders; for a bare name, the only one of that name anywhere."""
        spellings = dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/")))
        for spelling in spellings:
            for folder in self.folders:
                place = os.path.normpath(os.path.join(folder, spelling))
                if found := self.known.get(place) or _only(self.composed.get(_composed(place))):
                    return found
        return next((found for one in spellings if (found := _only(self.named.get(_composed(one))))), None)

    def fault(self, name: str) -> str:
        """Why a name can be no file of the data folder, whatever is copied into it; empty where it can."""
        place = os.path.normpath(os.path.join(self.folders[-1], name.strip()))
        if not name.strip():
            return "the row names no video: write its file name, or remove the row"
        if URL.match(name.strip()):
            return f"{name} is an address, and nothing is downloaded: fetch the clip and write its file name"
        if DRIVE.match(name.strip()) or os.path.commonpath((place, self.folders[-1])) != self.folders[-1]:
            return (
                f"{name!r} lies outside {self.folders[-1]}: copy or link the clip into it and write its path in there"
            )
        return ""


def index_mixkit(csv_path: Path, places: Places, groups: dict[Path, int]) -> list[Clip]:
    """The clips that `csv_path` (video,caption) lists; each video is a group of its own.

    `groups` has the number of each video listed before, in another list too, and is added to.

    Videos that are not there, and rows that repeat another, are counted and named in a warning. Raises
    FileNotFoundError without the CSV, and ValueError when it cannot be read (see `numbered_rows`), when a row has no
    caption or names what lies outside the data folder, or when every video is missing.
    """
    rows = numbered_rows(csv_path, COLUMNS, skipinitialspace=True)
    clips: dict[Clip, int] = {}
    missing, repeated = [], []
    for line, row in rows.items():
        path = places.find(row["video"])
        if fault := _fault(row) or ("" if path else places.fault(row["video"])):
            raise ValueError(f"{csv_path}, line {line}: {fault}")
        if path is None or not is_video(path):
            missing.append(f"{row['video']} (no video by its suffix)" if path else row["video"])
            continue
        group = groups.setdefault(path, len(groups) + 1)  # several captions of one video stay together in a split
        clip = Clip(path, row["caption"], label="mixkit", group=group)
        if clip in clips:
            repeated.append(f"{row['video']} (line {line} as line {clips[clip]})")
        clips.setdefault(clip, line)
    if len(missing) == len(rows):
        raise ValueError(
            f"{places.folders[0]} has none of the {len(rows)} videos that {csv_path} lists, such as {missing[0]}"
        )
    for names, what in ((missing, "missing"), (repeated, "listed again")):
        if names:
            warnings.warn(f"{csv_path}: {len(names)} of {len(rows)} {what}: {listed(names)}", stacklevel=2)
    return list(clips)


def _fault(row: dict[str, str]) -> str:
    """What is wrong with a row by itself."""
    if not row["caption"].strip():
        return f"{row['video']} has no caption: write one, or remove the row"
    for line in row["caption"].splitlines()[1:]:
        name = re.split(r"[,;\t|]", line)[0].strip(' "')
        if is_video(Path(name)) and name != line.strip():
            return f"the caption of {row['video']} goes on to the row of {name}: close its quote"
    return ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _only(paths: set[Path] | None) -> Path | None:
    return next(iter(paths)) if paths and len(paths) == 1 else None
