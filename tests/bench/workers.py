"""The parent's side of processes that time prepared work when asked to, so that frameworks take turns.

A process of its own for each, because they read the same variables (oneDNN's) and would share thread pools.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen import device
from moviegen.device import compiled

WARM_UP = 2  # calls after the first that are not counted


class WorkFailed(RuntimeError):
    """The work raised; its process goes on."""


class Worker:
    """A process that does `serving.serve`.

    Args:
        module: what to run, `python -m` module.
        is_ours: with the operators that this process has, which it must know before MindSpore is imported.
        variables: of its environment, beside this process's.
    """

    def __init__(self, module: str, is_ours: bool, variables: Mapping[str, str] | None = None) -> None:
        # what this process has set for its own MindSpore: `ONEDNN_MAX_CPU_ISA` would slow PyTorch down
        kept = {name: value for name, value in os.environ.items() if name not in device.set_here}
        if is_ours:
            kept[compiled.CHOICE] = compiled.current().name
        self.process = subprocess.Popen(
            (sys.executable, "-m", module), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=kept | dict(variables or {}),
        )  # fmt: skip
        self.module = module

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def prepare(self, name: str, **arguments: Any) -> float:
        """Builds work and calls it; the seconds of that first call, in which a graph is compiled.

        Raises:
            WorkFailed: it raised.
        """
        first = self._ask(name, arguments)
        for _ in range(WARM_UP):
            self.seconds(name)
        return first

    def seconds(self, name: str) -> float:
        """How long a call takes; see `serving.turn`."""
        return self._ask(name, None)

    def peak_memory(self) -> int:
        """Highest resident memory of the process so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def _ask(self, name: str, arguments: Mapping[str, Any] | None) -> float:
        print(json.dumps((name, arguments)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.module} ended at {name} (exit code {self.process.wait()}): see above")
        found = json.loads(answer)
        if isinstance(found, str):
            raise WorkFailed(f"{self.module}: {name}: {found}")
        return found


def take_turns(subjects: Sequence[tuple[Worker, str]], repetitions: int, progress: tqdm) -> list[list[float]]:
    """Milliseconds of every turn of every subject; turn i of all of them before turn i + 1 of any."""
    rounds = []
    for _ in range(repetitions):
        rounds.append([1e3 * worker.seconds(name) for worker, name in subjects])
        progress.update()
    return [list(times) for times in zip(*rounds, strict=True)]
