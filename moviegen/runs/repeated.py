"""What of a run must come out the same, to the last digit, when it is computed again: all but what a clock measured.

What is left out is named here, once; nothing is compared with a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# what clocks and the machine give, by its name in metrics, summaries, manifests and tables
MEASURED = frozenset(
    {
        "seconds", "data_wait", "tokens_per_second", "first_clip_seconds", "seconds_per_clip", "reference_seconds",
        "memory_bytes", "card_memory_bytes", "peak_memory_bytes", "started", "finished", "command", "commit", "machine",
    }
)  # fmt: skip
# lines of metrics that only say that work goes on, or went on again after an interruption: the clock's
ALIVE = frozenset(
    {
        "state", "resumed", "loading", "compiling", "compile", "validating", "sampling", "decoding", "saving", "copied",
    }
)  # fmt: skip
MEASURING = ("calibration",)  # programs whose whole result is a measurement
LOGS = "logs"  # a run's folder of what its processes said


def lines(metrics: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The lines of a `metrics.jsonl` that follow from the run's parameters."""
    return [kept(line) for line in metrics if line.get("kind") not in ALIVE]


def kept(value: Any) -> Any:
    """A JSON value without what was measured."""
    if isinstance(value, Mapping):
        return {name: kept(one) for name, one in value.items() if name not in MEASURED}
    return [kept(one) for one in value] if isinstance(value, list) else value


def files(folder: Path) -> list[Path]:
    """The files of a run's folder that count, from the folder; logs and locks do not."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.parts[0] != LOGS and not path.name.startswith("."))
