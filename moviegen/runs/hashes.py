"""SHA-256 of files and folders, each file read once: what was hashed is remembered by path, size and time.

The memory is `hashes.json` in the outputs folder. It is only there to save time: without it files are read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from tqdm import tqdm

from moviegen.config import outputs_root
from moviegen.runs.files import checksum, write_json
from moviegen.runs.folders import walk

Known = dict[str, list]  # absolute path -> [size, time of the last change in ns, hash]
SAVE_SECONDS = 30  # between two writes of the memory while files are read: a killed process loses at most so much


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


def content_hashes(files: Iterable[Path]) -> dict[Path, str | OSError]:
    """Of each file's bytes, in hexadecimal; of one that cannot be read, the error."""
    known, hashes, saved, unsaved = _known(_memory()), dict[Path, str | OSError](), time.monotonic(), False
    for path in tqdm(list(files), "reading files", unit="file", delay=2, leave=False, disable=None):
        key = str(path.absolute())
        try:
            state = path.stat()
            version = [state.st_size, state.st_mtime_ns]
            if known.get(key, [])[:2] != version:
                known[key], unsaved = [*version, checksum(path)], True
            hashes[path] = known[key][2]
        except OSError as error:
            hashes[path] = error
        if unsaved and time.monotonic() - saved > SAVE_SECONDS:
            write_json(_memory(), known)
            saved, unsaved = time.monotonic(), False
    if unsaved:
        write_json(_memory(), known)
    return hashes


def _hashes(files: list[Path]) -> list[str]:
    hashes = content_hashes(files)
    for content in hashes.values():
        if isinstance(content, OSError):
            raise content
    return [str(hashes[path]) for path in files]


def _memory() -> Path:
    return outputs_root() / "hashes.json"


@functools.cache
def _known(memory: Path) -> Known:
    """What was hashed before; other processes' later additions are not seen, and may be written over."""
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
