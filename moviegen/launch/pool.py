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
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Generic, TypeVar

from moviegen.launch.watch import how_it_ended
from moviegen.launch.worker import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
SPAWN = multiprocessing.get_context("spawn")  # a fork would hold the locks of threads that it does not have


@dataclass(frozen=True)
class Failure:
    """Why an item has no result: a reason in words, and whether its call took longer than the time limit."""

    reason: str
    timed_out: bool = False


def map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], time_limit: float, workers: int
) -> Generator[tuple[Item, Result | Failure], None, None]:
    """Every item with what the function returns for it, in the order in which they get done.

    Whatever ends this generator, or this process, no worker is left.

    Args:
        function: of a module, where other processes find it.
        time_limit: seconds that one call may take.
        workers: how many processes, at most.

    Raises:
        RuntimeError: a worker ended before it was given an item.
    """
    waiting = deque(items)
    pool: list[_Worker[Item, Result]] = []
    try:
        for _ in range(min(workers, len(waiting))):
            pool.append(_Worker(function, time_limit))
        while pool:
            for worker in _ready(pool):
                answer = worker.answer()
                yield from ((item, answer) for item in worker.given)  # none yet: it only says that it has started
                if not waiting:
                    worker.end()
                    pool.remove(worker)
                elif worker.ended:
                    pool[pool.index(worker)] = _Worker(function, time_limit)
                else:
                    worker.give(waiting.popleft())
    finally:
        for worker in pool:
            worker.end()


class _Worker(Generic[Item, Result]):
    """A process, and the item it works on: `given` is empty until it has started."""

    def __init__(self, function: Callable[[Item], Result], time_limit: float) -> None:
        self.time_limit, self.deadline, self.ended = time_limit, math.inf, False
        self.given: list[Item] = []
        self.pipe, worker_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(function, worker_end), daemon=True)
        resource_tracker.ensure_running()  # once; started below, it would let interrupts through again
        with _uninterrupted():
            self.process.start()
        worker_end.close()  # so that the pipe ends with the process

    def give(self, item: Item) -> None:
        self.given, self.deadline = [item], time.monotonic() + self.time_limit
        with suppress(OSError):  # it has just ended: `answer` will say so
            self.pipe.send(item)

    def answer(self) -> Result | Failure:
        """The result of its item, or why there is none."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
            failure = Failure(f"took longer than {self.time_limit:g} s", timed_out=True)
        except (EOFError, OSError):
            self.process.join()
            failure = Failure(f"the process at work on it {how_it_ended(self.process.exitcode or 0)}")
        self.end()
        if not self.given:
            raise RuntimeError(f"a worker process could not start: {failure.reason}")
        return failure

    def end(self) -> None:
        self.process.kill()
        self.process.join(1)  # no longer: a process that waits for a lost network disk does not end
        self.pipe.close()
        self.ended = True


def _ready(pool: list[_Worker[Item, Result]]) -> list[_Worker[Item, Result]]:
    """Waits for workers that have answered, have ended, or are out of time."""
    seconds = min(worker.deadline for worker in pool) - time.monotonic()
    answered = connection.wait([worker.pipe for worker in pool], None if math.isinf(seconds) else max(0, seconds))
    return [worker for worker in pool if worker.pipe in answered or worker.deadline <= time.monotonic()]


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
                answer: Result | Failure = function(item)
            except Exception as error:
                answer = Failure(f"{type(error).__name__}: {error}")
            pipe.send(answer)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C, which a terminal sends to all: its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
