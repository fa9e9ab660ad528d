"""SHA-256 of files and folders, each file read once: what was hashed is remembered by path, size and time.

The memory is `hashes.json` in the outputs folder. It is only there to save time: without it files are read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from tqdm import tqdm

from moviegen.config import outputs_root
from moviegen.runs.files import checksum, write_json
from moviegen.runs.folders import walk

Known = dict[str, list]  # absolute path -> [size, time of the last change in ns, hash]


def file_hash(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    return _hashes([path])[0]


def folder_hash(folder: Path, suffixes: Collection[str]) -> str:
    """Of the names and contents of the files below a folder that end in one of `suffixes`, in hexadecimal.

    Which those are, `runs.folders.walk` says. Names are relative, so a copied or moved folder has the same hash.
    """
    files = [path for path in walk(folder) if path.suffix.lower() in suffixes]
    return named_hash(zip((path.relative_to(folder).as_posix() for path in files), _hashes(files), strict=True))


def named_hash(contents: Iterable[tuple[str, str]]) -> str:
    """Of (name, hash of the content) pairs."""
    return hashlib.sha256(
        "".join(f"{name} {content}\n" for name, content in contents).encode(errors="surrogateescape")
    ).hexdigest()


def _hashes(files: list[Path]) -> list[str]:
    known, versions = _known(_memory()), {path: _version(path) for path in files}
    places = {path: str(path.absolute()) for path in files}
    unread = [path for path in files if known.get(places[path], [])[:2] != versions[path]]
    for path in tqdm(unread, "reading files", unit="file", delay=2, leave=False, disable=None):
        known[places[path]] = [*versions[path], checksum(path) if path.is_file() else "missing"]
    if unread:
        write_json(_memory(), known)
    return [known[places[path]][2] for path in files]


def _version(path: Path) -> list[int]:
    """Size and time of a file, which say whether it has to be read again; zeros for a link that leads nowhere."""
    try:
        state = path.stat()
    except OSError:
        return [0, 0]
    return [state.st_size, state.st_mtime_ns]


def _memory() -> Path:
    return outputs_root() / "hashes.json"


@functools.cache
def _known(memory: Path) -> Known:
    """What was hashed before; other processes' later additions are not seen, and may be written over."""
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
