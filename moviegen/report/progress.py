"""How far a running program is."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

TICK_SECONDS = 2.0  # between two looks at the clock while a program says nothing: it starts, or compiles
LINE_SECONDS = 30.0  # between two lines where there is no terminal
BESIDE = (
    "loading",
    "validating",
    "sampling",
    "saving",
    "decoding",
)  # kinds of lines: what a training does beside its steps
WITHOUT_STEPS = "{desc}, {elapsed}"
_BAR = re.compile(r" *\|[^|\r\n]*\| *")


class Progress:
    """A bar on standard output, moved by the lines of `metrics.jsonl`.

    It is text, not a widget: a widget would be dead in the published page. Until the first step is done it tells how
    long the program has been starting and compiling.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar = tqdm(desc=f"{name}: starting", file=sys.stdout, leave=False, ncols=100, bar_format=WITHOUT_STEPS)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Moves the bar to a line's step; the first one sets where it began, so that a resumed run counts its own.

        A job may compute several runs: the first line of the next one's training begins it anew.
        """
        with self._lock:
            self._move(line)

    def close(self) -> None:
        """Removes the bar."""
        self._ended.set()
        self._clock.join()
        self._bar.close()

    def _move(self, line: Mapping[str, Any]) -> None:
        is_before = line.get("kind") == "validation" and line["step"] == 0
        if line.get("kind") == "state" or is_before:  # all is there: the first step is compiled next
            self._bar.reset()
            self._bar.total, self._bar.bar_format = None, WITHOUT_STEPS
            self._bar.set_description_str(f"{self._name}: compiling")
            return
        if line.get("kind") in BESIDE:
            self._bar.set_description_str(f"{self._name}: {line['kind']}")
            return
        if "steps" not in line:
            return
        if self._bar.total is None:
            self._bar.bar_format = None
            self._bar.reset(line["steps"])
            self._bar.initial, self._bar.start_t = line["step"] - 1, time.time()
        self._bar.set_description_str(self._name, refresh=False)
        self._bar.n = max(self._bar.n, line["step"])
        if "loss" in line:
            self._bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
        self._bar.refresh()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            with self._lock:
                self._bar.refresh()


class ProgressLines:
    """A text file that passes on what bars write as lines, now and then: for a log, or a pipe.

    Args:
        target: where they go.
        label: what stands before each.
    """

    def __init__(self, target: TextIO, label: str) -> None:
        self._target, self._label, self._told = target, label, time.monotonic()

    def write(self, text: str) -> int:
        """Takes what was written over a line; passes the newest of it on where none was for LINE_SECONDS."""
        shown = next((part for part in reversed(re.split(r"[\r\n]", text)) if part.strip()), "")
        now = time.monotonic()
        if shown and now - self._told >= LINE_SECONDS:
            self._told = now
            print(f"{self._label}: {_BAR.sub(' ', shown).strip()}", file=self._target, flush=True)
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""
