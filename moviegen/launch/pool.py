"""A function called on many items by worker processes, where an item that hangs or kills its worker costs only itself.

`concurrent.futures` gives up the whole pool when one process dies, and cannot end a call that hangs.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Generic, TypeVar

from moviegen.launch.watch import how_it_ended
from moviegen.launch.worker import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
SPAWN = multiprocessing.get_context("spawn")  # a fork would hold the locks of threads that it does not have


@dataclass(frozen=True)
class Lost:
    """In the place of a result: why there is none, and whether it is for being late."""

    reason: str
    late: bool = False


def each(
    function: Callable[[Item], Result], items: Iterable[Item], limit: float, workers: int
) -> Generator[tuple[Item, Result | Lost], None, None]:
    """Every item with what the function returns for it, in the order in which they get done.

    Whatever ends this call, or this process, no worker is left.

    Args:
        function: of a module, where other processes find it.
        limit: seconds that one call may take.
        workers: how many processes, at most.

    Raises:
        RuntimeError: a worker ended before it was given an item.
    """
    waiting = deque(items)
    crew: list[_Worker[Item, Result]] = []
    try:
        for _ in range(min(workers, len(waiting))):
            crew.append(_Worker(function, limit))
        while crew:
            for worker in _ready(crew):
                answer = worker.answer()
                yield from ((item, answer) for item in worker.given)  # none yet: it only says that it has started
                if not waiting:
                    worker.end()
                    crew.remove(worker)
                elif worker.ended:
                    crew[crew.index(worker)] = _Worker(function, limit)
                else:
                    worker.give(waiting.popleft())
    finally:
        for worker in crew:
            worker.end()


class _Worker(Generic[Item, Result]):
    """A process, and the item it is at work on."""

    def __init__(self, function: Callable[[Item], Result], limit: float) -> None:
        self.limit, self.deadline, self.ended = limit, math.inf, False
        self.given: list[Item] = []
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(function, theirs), daemon=True)
        with _uninterrupted():
            self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def give(self, item: Item) -> None:
        self.given, self.deadline = [item], time.monotonic() + self.limit
        with suppress(OSError):  # it has just ended: `answer` will say so
            self.pipe.send(item)

    def answer(self) -> Result | Lost:
        """What came of its item."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
            lost = Lost(f"took longer than {self.limit:g} s", late=True)
        except (EOFError, OSError):
            self.process.join()
            lost = Lost(f"the process at work on it {how_it_ended(self.process.exitcode or 0)}")
        self.end()
        if not self.given:
            raise RuntimeError(f"a worker process could not start: {lost.reason}")
        return lost

    def end(self) -> None:
        self.process.kill()
        self.process.join(1)  # no longer: a process that waits for a lost network disk does not end
        self.pipe.close()
        self.ended = True


def _ready(crew: list[_Worker[Item, Result]]) -> list[_Worker[Item, Result]]:
    """Waits for workers that have answered, have ended, or are out of time."""
    seconds = min(worker.deadline for worker in crew) - time.monotonic()
    heard = connection.wait([worker.pipe for worker in crew], None if math.isinf(seconds) else max(0, seconds))
    return [worker for worker in crew if worker.pipe in heard or worker.deadline <= time.monotonic()]


def _work(function: Callable[[Item], Result], pipe: connection.Connection) -> None:
    """In the worker: answers item after item, until the pipe is closed."""
    die_with_parent()
    with suppress(OSError):  # where memory runs out, this process goes and not the one that counts
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(EOFError, OSError):
        pipe.send(None)  # started
        while True:
            item = pipe.recv()
            try:
                answer: Result | Lost = function(item)
            except Exception as error:
                answer = Lost(f"{type(error).__name__}: {error}")
            pipe.send(answer)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C, which a terminal sends to all: its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
