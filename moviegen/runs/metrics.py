"""`metrics.jsonl`: one JSON object a line, written as things happen, read also while a run goes on."""

from __future__ import annotations

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

from moviegen.runs.files import write_text

PROGRESS_SECONDS = 4.0  # between two lines that say no more than that work goes on


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, which need not be there; a half-written last one is left out.

    A power cut can leave zeros in the place of lines: what cannot be read is left out, with a warning.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("it holds no JSON object")
            records.append(record)
        except (ValueError, RecursionError) as error:
            warnings.warn(f"{path}, line {number} is damaged ({error}): it is left out", stacklevel=2)
    return records


class MetricsWriter:
    """Appends JSON objects to a run's `metrics.jsonl`, each line in one write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._written = path, time.monotonic()
        self.drop_after(math.inf)  # a killed writer may have left half a line

    def write(self, **values: Any) -> None:
        """Adds one line; floats are kept to full precision."""
        self._written = time.monotonic()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def progress(self, **values: Any) -> None:
        """Adds a line where none was for PROGRESS_SECONDS: of work that goes on, for who watches."""
        if time.monotonic() - self._written > PROGRESS_SECONDS:
            self.write(**values)

    def drop_after(self, step: float) -> None:
        """Removes the lines of steps past `step`: a resumed run writes them again."""
        if not self._path.exists():
            return
        kept = [record for record in read_metrics(self._path) if record.get("step", 0) <= step]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
