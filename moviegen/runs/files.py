"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moviegen.config import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the size a file may have

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
CANNOT_RENAME = (errno.ENOSYS, errno.EOPNOTSUPP)  # what mounts of object stores say
# what network and FUSE mounts say that leave it to themselves when something reaches the disk
CANNOT_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES)


class NoSpaceError(OSError):
    """A file could not be written; the message says where room is needed."""


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Says where a disk was full: the system's error of a write names no file.

    Raises:
        NoSpaceError: the error is one of FULL.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoSpaceError(
            f"cannot write into {error.filename or folder} ({error.strerror}): make room there and start again, "
            f"training goes on from the last checkpoint"
        ) from error


def check_writable(folder: Path, named_by: str = "MOVIEGEN_OUTPUTS") -> None:
    """Refuses a folder for results that cannot be made or written into, before anything is computed for it.

    It is not made: what is refused after this leaves nothing behind.

    Args:
        named_by: the variable or option that can name another.

    Raises:
        ConfigError: the message names both.
    """
    try:
        with tempfile.TemporaryFile(dir=_there(folder)):
            pass
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(
            f"cannot write into {folder}, where results go ({error.strerror}): have {named_by} name a folder that can "
            f"be written to, or mend this one"
        ) from None


def _there(folder: Path) -> Path:
    """A folder or, where it is not made yet, the nearest above it; what is refused leaves none behind."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()
            return place
    return folder


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Gives a temporary name beside `path`: on success what was written there becomes `path`, otherwise it is gone.

    The suffix is kept: some writers read the format off it. The name is drawn: processes of two hosts or containers
    that share the folder may have the same number. A mount that cannot rename gets a copy.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{shortened(path.stem)}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            flush(file.fileno())
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in CANNOT_RENAME:
                raise
            shutil.copyfile(temporary, path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def shortened(name: str, most: int = 120) -> str:
    """A name of at most `most` bytes: a longer one's beginning, and a mark of the whole.

    A file's name has 255 bytes at most, 143 in an encrypted home folder, and what is put around it needs some.
    """
    content = os.fsencode(name)
    if len(content) <= most:
        return name
    return f"{content[: most - 9].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:8]}"


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`write_text` of an indented JSON value."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        mend: what to do with a damaged file, for the message.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}): {mend}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is damaged (it holds no JSON object): {mend}")
    return content


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """`write_text` of a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def flush_folder(folder: Path | str) -> None:
    """Puts what was created, renamed or removed in a folder on the disk, where the file system can be told to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # CIFS: a folder is no file there
        return
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Puts a file on the disk, where the file system can be told to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise


def checksum(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
