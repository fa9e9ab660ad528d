"""Whether a process that says nothing still works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

LOOK_SECONDS, BUSY_SHARE = 5.0, 0.1  # between two looks; of one core, above which a process works


@contextmanager
def while_busy(progress: Callable[[], None]) -> Iterator[None]:
    """Calls `progress` from a thread of its own while the enclosed work, of which nothing else is heard, goes on.

    It goes on where this process, with those it started, took BUSY_SHARE of a core since the last look. A process that
    waits for what never comes takes less; one that computes for ever is not told apart.
    """
    ended = threading.Event()

    def look() -> None:
        before = _processor_seconds()
        while not ended.wait(LOOK_SECONDS):
            now = _processor_seconds()
            if now - before >= BUSY_SHARE * LOOK_SECONDS:
                progress()
            before = now

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _processor_seconds() -> float:
    """That this process took, and those it started, ended ones too."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:4])  # user, system, and those of children that have ended
    for child in own.children(recursive=True):
        with suppress(psutil.Error):  # it ended in between
            total += sum(child.cpu_times()[:2])
    return total
