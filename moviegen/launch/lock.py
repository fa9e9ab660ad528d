"""One process at a time in a folder, also where the file system knows no locks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

# What flock says on network and FUSE mounts without locks (of ENOSYS, filelock sees to itself).
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class Held(RuntimeError):
    """Another process works in the folder; the message says what to do."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder.

    The system's lock ends with its process. Where there are none a file stands for it, which names host and process:
    one of a process of this host that is gone is not minded.

    Raises:
        Held: another process keeps it.
    """
    with _acquired(folder):
        yield


def _acquired(folder: Path) -> filelock.AcquireReturnProxy:
    try:
        return filelock.FileLock(folder / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise Held("wait for it, or end it") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    mark = folder / ".lock-holder"
    try:
        return filelock.SoftFileLock(mark).acquire(timeout=0)
    except filelock.Timeout:
        raise Held(f"wait for it, or end it; if it ran on another host and was killed, remove {mark}") from None
