"""SHA-256 of files and folders, each file read once: what was hashed is remembered by path, size and time.

The memory is `hashes.json` in the outputs folder. It is only there to save time: without it files are read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
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

    Which those are, `runs.folders.walk` says; one that is gone or may not be read counts by its name. Names are
    relative, so a copied or moved folder has the same hash.
    """
    files = [path for path in walk(folder) if path.suffix.lower() in suffixes]
    sound = [path for path in files if path.is_file() and os.access(path, os.R_OK)]
    contents = dict(zip(sound, _hashes(sound), strict=True))
    return named_hash((path.relative_to(folder).as_posix(), contents.get(path, "missing")) for path in files)


def named_hash(contents: Iterable[tuple[str, str]]) -> str:
    """Of (name, hash of the content) pairs."""
    return hashlib.sha256(
        "".join(f"{name} {content}\n" for name, content in contents).encode(errors="surrogateescape")
    ).hexdigest()


def _hashes(files: list[Path]) -> list[str]:
    known, states = _known(_memory()), {path: path.stat() for path in files}
    versions = {path: [state.st_size, state.st_mtime_ns] for path, state in states.items()}
    places = {path: str(path.absolute()) for path in files}
    unread = [path for path in files if known.get(places[path], [])[:2] != versions[path]]
    for path in tqdm(unread, "reading files", unit="file", delay=2, leave=False, disable=None):
        known[places[path]] = [*versions[path], checksum(path)]
    if unread:
        write_json(_memory(), known)
    return [known[places[path]][2] for path in files]


def _memory() -> Path:
    return outputs_root() / "hashes.json"


@functools.cache
def _known(memory: Path) -> Known:
    """What was hashed before; other processes' later additions are not seen, and may be written over."""
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
