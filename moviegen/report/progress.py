"""How far a running program is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar on standard output, moved by the lines of `metrics.jsonl`.

    It is text, not a widget: a widget would be dead in the published page.
    """

    def __init__(self, name: str) -> None:
        self._bar = tqdm(desc=f"{name}: starting", file=sys.stdout, leave=False, ncols=100, bar_format="{desc}")
        self._name = name

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Moves the bar to a line's step; the first one sets where it began, so that a resumed run counts its own.

        A job may compute several runs: the first line of the next one's training begins it anew.
        """
        if line.get("kind") == "state":
            self._bar.n, self._bar.total = 0, None
        if "step" not in line:
            return
        if self._bar.total is None:
            self._bar.bar_format = None
            self._bar.reset(line.get("steps"))
            self._bar.initial, self._bar.start_t = line["step"] - 1, time.time()
            self._bar.set_description_str(self._name, refresh=False)
        self._bar.n = max(self._bar.n, line["step"])
        if "loss" in line:
            self._bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()
