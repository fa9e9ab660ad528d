"""One line of a table: what a piece of work takes here, what it takes a peer, and the ratio that is aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def compared(
    task: str,
    peer: str,
    times: Sequence[float],
    reference: Sequence[float],
    at_most: float | None = None,
    compile_s: float | None = None,
) -> dict[str, Any]:
    """Two series of calls that took turns.

    Args:
        task: the work, in words.
        peer: who did the same.
        times: ours, of every call in milliseconds.
        reference: the peer's, of the same turns.
        at_most: the ratio that is aimed at.
        compile_s: seconds in which our graph was compiled.
    """
    return {
        "task": task,
        "peer": peer,
        "ours_ms": statistics.median(times),
        "reference_ms": statistics.median(reference),
        **judged(ratio(times, reference), at_most=at_most),
        "ratio_of_fastest_calls": min(times) / min(reference),
        "compile_s": compile_s,
        "calls_ms": {"ours": list(times), "reference": list(reference)},
    }


def without_peer(task: str, peer: str, times: Sequence[float], why: str, at_most: float) -> dict[str, Any]:
    """The peer could not do it, or was not asked; the row says so."""
    return {
        "task": task,
        "peer": f"{peer}: did not run",
        "ours_ms": statistics.median(times) if times else None,
        "reference_ms": None,
        **judged(None, at_most=at_most),
        "ratio_of_fastest_calls": None,
        "compile_s": None,
        "calls_ms": {"ours": list(times), "why": why},
    }


def judged(value: float | None, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """A ratio beside what is aimed at, and whether it is reached."""
    if at_most is None and at_least is None:
        return {"ratio": value, "aim": None, "reached": None}
    aim = f"at most {at_most:.2f}" if at_most is not None else f"at least {at_least:.2f}"
    if value is None:
        return {"ratio": None, "aim": aim, "reached": "not measured"}
    is_reached = value <= at_most if at_most is not None else value >= at_least
    return {"ratio": value, "aim": aim, "reached": "yes" if is_reached else "no"}


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of calls that were neighbours in time."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows' names and numbers, in columns as wide as their widest cell."""
    shown = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows]
    cells = [[key.replace("_", " ") for key in shown[0]], *([text(value) for value in row.values()] for row in shown)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def text(value: str | float | None) -> str:
    """Three significant digits, or all before the point."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
