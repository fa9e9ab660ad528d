"""The files below a folder: one walk for listing clips and for hashing them, so that both see the same files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from moviegen.config import outputs_root

# What FFmpeg reads as video; a file of another suffix is no clip.
VIDEO_SUFFIXES = frozenset(
    (".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv",
     ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm",
     ".wmv", ".y4m")
)  # fmt: skip

Identity = tuple[int, int]  # device and inode: one folder has one, by whatever path it is reached


def walk(folder: Path) -> list[Path]:
    """The files below a folder, at any depth, sorted.

    Links to files and folders are followed, except to a folder above the link. A broken link is returned like a file.
    Left out are names with a leading dot (half-written files, and what operating systems leave), the outputs folder,
    and whatever is neither file nor folder. Warns of a folder that cannot be read.
    """
    return sorted(Path(path) for path in _files(str(folder), _closed(folder)))


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` itself that `walk` looks into, sorted."""
    closed = _closed(folder)
    return sorted(Path(entry.path) for entry in _entries(str(folder)) if _is_open(entry, closed))


def is_video(path: Path) -> bool:
    """Whether a file is a clip by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def printable(path: Path) -> str:
    r"""A path as UTF-8 can hold it: bytes of another encoding in its name are written \udc80 to \udcff."""
    return str(path).encode(errors="backslashreplace").decode()


def listed(names: Sequence[str], most: int = 10) -> str:
    """`a, b and 3 more`: a sentence names the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _closed(folder: Path) -> frozenset[Identity | None]:
    """The folders that are not walked below `folder`: itself, the outputs folder, and what does not exist."""
    return frozenset((_identity(folder), _identity(outputs_root()), None))


def _files(folder: str, closed: frozenset[Identity | None]) -> Iterator[str]:
    for entry in _entries(folder):
        if _is_folder(entry):
            if _is_open(entry, closed):
                yield from _files(entry.path, closed | {_identity(entry.path)})
        elif entry.is_symlink() or entry.is_file():
            yield entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        warnings.warn(f"cannot look into {folder} ({error.strerror}): what is in it is left out", stacklevel=2)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_open(entry: os.DirEntry[str], closed: frozenset[Identity | None]) -> bool:
    return _is_folder(entry) and _identity(entry.path) not in closed


def _identity(folder: Path | str) -> Identity | None:
    """The same for every path of one folder; None where there is none."""
    try:
        state = os.stat(folder)
    except OSError:
        return None
    return state.st_dev, state.st_ino
