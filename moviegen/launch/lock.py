"""One process at a time in a folder, also where the file system has no locks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

# flock's errors on network and FUSE mounts without locks (filelock handles ENOSYS itself)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class FolderInUse(RuntimeError):
    """Another process works in the folder; the message says what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder.

    The operating system's lock ends with its process. Where the file system has no locks, a file that names host and
    process takes its place; one left by a process of this host that has ended is ignored.

    Raises:
        FolderInUse: another process has locked it.
    """
    with _acquired(folder):
        yield


def _acquired(folder: Path) -> filelock.AcquireReturnProxy:
    try:
        return filelock.FileLock(folder / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        raise FolderInUse("wait for it, or end it") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    lock_file = folder / ".lock-holder"
    try:
        return filelock.SoftFileLock(lock_file).acquire(timeout=0)
    except filelock.Timeout:
        raise FolderInUse(
            f"wait for it, or end it; if it ran on another host and was killed, remove {lock_file}"
        ) from None
