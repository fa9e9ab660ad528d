"""Saves in the background: a checkpoint is copied at once and written while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from moviegen.train.checkpoint import POLL_SECONDS, Checkpoints, Part


class Saver:
    """One rank's thread that writes checkpoints, one at a time; more than one is never in memory.

    Ranks wait for each other's files by looking at the disk, never in a collective: rank 0's thread before it commits,
    the others before the next save.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints, self.world = checkpoints, checkpoints.world
        self._pool, self._step = ThreadPoolExecutor(1), 0
        self._pending: Future | None = None

    def start(
        self, step: int, parts: Iterable[Part], state: Mapping[str, Any], alive: Callable[[], None] = lambda: None
    ) -> None:
        """Takes this rank's parts, copies all, and writes them in the background; the save before must be done.

        Args:
            alive: called, in the thread, while bytes are written.
        """
        self._step = step
        self._pending = self._pool.submit(self.checkpoints.save, step, list(parts), state, alive)

    def make_way(self, step: int) -> None:
        """Before the update of a step that will be saved: waits for the save before.

        The update's own exchange then comes after what rank 0 deletes here, and before what any rank writes.
        """
        self.wait()
        if self.world.is_main:
            self.checkpoints.make_way(step)

    def raise_if_failed(self) -> None:
        """Raises what a save in the background raised.

        Raises:
            NoSpaceError, CheckpointError: as `Checkpoints.save`.
        """
        if self._pending and self._pending.done():
            self._pending.result()

    def wait(self) -> None:
        """Until the last save is committed.

        Raises:
            NoSpaceError, CheckpointError: as `Checkpoints.save`.
        """
        if self._pending is None:
            return
        self._pending.result()
        while not self.checkpoints.is_committed(self._step):  # rank 0 ends the job if it never will be
            time.sleep(POLL_SECONDS)
        self._pending = None

    def finish(self, seconds: float = 30) -> None:
        """After an error: lets the save that is under way end, unless other ranks' files do not come for so long."""
        self.checkpoints.silence = seconds
        self._pool.shutdown(wait=True)
