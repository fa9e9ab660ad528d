"""How numbers, durations, lists, values and paths are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from moviegen import plan
from moviegen.config import Dataset, project_root


def shown(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    return "-" if value is None else f"{value:#.{digits}g}".rstrip(".")


def percent(share: float | None) -> str:
    """A share with one decimal, or a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def between(shares: Sequence[float] | None) -> str:
    """The two ends of a share's interval, or a dash where there is none."""
    return "-" if shares is None else " to ".join(map(percent, shares))


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign and so many significant digits, or a dash."""
    return "-" if value is None else f"{value:+#.{digits}g}".rstrip(".")


def duration(seconds: float | None) -> str:
    """`75` is `1 min 15 s`."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def count(parameters: int) -> str:
    """Parameters are counted in billions, not in giga."""
    return plan.si(parameters).replace("G", "B")


def longest_clip(dataset: Dataset) -> str:
    """Frames, height and width of the longest clips a stage sees: `16x48x80`."""
    return str(dataset.longest_clip)


def sides(size: Iterable[int]) -> str:
    """`48x80`."""
    return "x".join(map(str, size))


def typed(value: Any) -> str:
    """A parameter's value as one types it on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def in_checkout(text: str) -> str:
    """A text with its paths as one types them in the checkout."""
    return text.replace(f"{project_root()}/", "")


def after(updates: int) -> str:
    """When in training: `after 800 updates`."""
    if not updates:
        return "before the first update"
    return f"after {updates:,} update{'s' if updates > 1 else ''}"


def listed(items: Iterable[object]) -> str:
    """`5, 10 and 25`."""
    *first, last = [*map(str, items)] or [""]
    return f"{', '.join(first)} and {last}" if first else last
