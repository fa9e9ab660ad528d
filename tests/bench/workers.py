"""Processes that time prepared work when asked to, so that two frameworks take turns on an otherwise idle machine.

A process of its own for each, because they read the same variables (oneDNN's) and would share thread pools.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from moviegen import device

Work = Callable[[], Any]
WARM_UP = 2  # calls after the first that are not counted


def serve(build: Callable[..., Work]) -> None:
    """Answers a `Worker`: JSON lines in, JSON lines out; whatever else prints goes to stderr.

    Args:
        build: turns a request's arguments into the work to be timed, which returns when it is done.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepared: dict[str, Work] = {}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        if arguments is not None:
            prepared[name] = build(**arguments)
        started = time.perf_counter()
        prepared[name]()
        print(json.dumps(time.perf_counter() - started), file=answers)


class Worker:
    """The parent's side of `serve`.

    Args:
        module: what to run, `python -m` module.
        is_ours: MindSpore's environment; the other gets none of it, as `ONEDNN_MAX_CPU_ISA` would slow PyTorch down.
    """

    def __init__(self, module: str, is_ours: bool) -> None:
        kept = {name: value for name, value in os.environ.items() if is_ours or name not in device.CPU_ENVIRONMENT}
        self.process = subprocess.Popen(
            (sys.executable, "-m", module), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept
        )
        self.module = module

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def prepare(self, name: str, **arguments: Any) -> float:
        """Builds work and calls it; the seconds of that first call, in which a graph is compiled."""
        first = self._ask(name, arguments)
        for _ in range(WARM_UP):
            self.seconds(name)
        return first

    def seconds(self, name: str) -> float:
        """How long one more call takes."""
        return self._ask(name, None)

    def _ask(self, name: str, arguments: Mapping[str, Any] | None) -> float:
        print(json.dumps((name, arguments)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.module} ended at {name} (exit code {self.process.wait()}): see above")
        return json.loads(answer)


def take_turns(subjects: Sequence[tuple[Worker, str]], repetitions: int, progress: tqdm) -> list[list[float]]:
    """Milliseconds of every call of every subject; call i of all of them before call i + 1 of any."""
    rounds = []
    for _ in range(repetitions):
        rounds.append([1e3 * worker.seconds(name) for worker, name in subjects])
        progress.update()
    return [list(times) for times in zip(*rounds, strict=True)]


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of calls that were neighbours in time."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))
