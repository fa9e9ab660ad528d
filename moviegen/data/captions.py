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


class FileFinder:
    """Finds the files of a data folder by their names in a table.

    A table may come from anyone, so a file outside the folder is never returned.

    Args:
        files: the folder's files, from `runs.folders.walk`.
        folders: names in the table may be relative to each of these; the first that has the file wins.
    """

    def __init__(self, files: Iterable[Path], folders: Sequence[Path]) -> None:
        self.folders = [os.path.abspath(folder) for folder in folders]
        self.by_path = {os.path.abspath(path): path for path in files}
        self.by_composed_path: dict[str, set[Path]] = defaultdict(set)  # macOS writes accents apart from their letters
        self.by_name: dict[str, set[Path]] = defaultdict(set)
        for absolute, path in self.by_path.items():
            self.by_composed_path[_composed(absolute)].add(path)
            self.by_name[_composed(path.name)].add(path)

    def find(self, name: str) -> Path | None:
        """The file called `name` below one of the folders; for a bare name, the only one of that name anywhere."""
        spellings = dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/")))
        for spelling in spellings:
            for folder in self.folders:
                absolute = os.path.normpath(os.path.join(folder, spelling))
                if file := self.by_path.get(absolute) or _only(self.by_composed_path.get(_composed(absolute))):
                    return file
        return next((file for spelling in spellings if (file := _only(self.by_name.get(_composed(spelling))))), None)

    def fault(self, name: str) -> str:
        """Why no file of the data folder can have this name, whatever is copied into it; empty where one can."""
        absolute = os.path.normpath(os.path.join(self.folders[-1], name.strip()))
        if not name.strip():
            return "the row names no video: write its file name, or remove the row"
        if URL.match(name.strip()):
            return f"{name} is an address, and nothing is downloaded: fetch the clip and write its file name"
        if DRIVE.match(name.strip()) or os.path.commonpath((absolute, self.folders[-1])) != self.folders[-1]:
            return (
                f"{name!r} lies outside {self.folders[-1]}: copy or link the clip into it and write its path in there"
            )
        return ""


def index_mixkit(csv_path: Path, finder: FileFinder, groups: dict[Path, int]) -> list[Clip]:
    """The clips that `csv_path` (video,caption and maybe paraphrase) lists; each video is a group of its own.

    `groups` maps each video of the lists read so far to its number; new ones are added.

    Missing videos, and rows that repeat another, are counted and named in a warning. Raises
    FileNotFoundError without the CSV, and ValueError when it cannot be read (see `numbered_rows`), when a row has no
    caption or names what lies outside the data folder, or when every video is missing.
    """
    rows = numbered_rows(csv_path, COLUMNS, skipinitialspace=True)
    clips: dict[Clip, int] = {}
    missing, repeated = [], []
    for line, row in rows.items():
        path = finder.find(row["video"])
        if fault := _fault(row) or ("" if path else finder.fault(row["video"])):
            raise ValueError(f"{csv_path}, line {line}: {fault}")
        if path is None or not is_video(path):
            missing.append(f"{row['video']} (no video by its suffix)" if path else row["video"])
            continue
        group = groups.setdefault(path, len(groups) + 1)  # several captions of one video stay together in a split
        other_words = row.get("paraphrase", "").strip()
        clip = Clip(path, row["caption"], label="mixkit", group=group, paraphrase=other_words)
        if clip in clips:
            repeated.append(f"{row['video']} (line {line} as line {clips[clip]})")
        clips.setdefault(clip, line)
    if len(missing) == len(rows):
        raise ValueError(
            f"{finder.folders[0]} has none of the {len(rows)} videos that {csv_path} lists, such as {missing[0]}"
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
