"""One thing that was measured, beside what was foretold of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Proof:
    """A quantity that was measured here, at sizes that fit here, and what it must be for a claim to hold.

    Args:
        claim: of the published sizes, a sentence.
        quantity: what was measured, and at which sizes, in words.
        measured: in `unit`.
        predicted: the same by counting (`plan`) or by arithmetic; None: there is only a bound.
        lowest: that the measured quantity may be.
        highest: that it may be.
        unit: `MiB`, `s`, `dB`, or empty for a ratio.
    """

    claim: str
    quantity: str
    measured: float
    predicted: float | None
    lowest: float
    highest: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the measured quantity lies where it must; never where it is no number."""
        return self.lowest <= self.measured <= self.highest

    def content(self) -> dict[str, Any]:
        """In JSON's types, with the verdict."""
        return asdict(self) | {"holds": self.holds}

    def __str__(self) -> str:
        predicted = "" if self.predicted is None else f", foretold {self.predicted:.6g}"
        verdict = "holds" if self.holds else f"does not hold: it must be {self.lowest:.6g} to {self.highest:.6g}"
        return f"{self.quantity}: {self.measured:.6g} {self.unit}".rstrip() + f"{predicted}; {verdict}"


def within(predicted: float, share: float) -> tuple[float, float]:
    """The bounds (lowest, highest) that far to both sides of a prediction."""
    return predicted * (1 - share), predicted * (1 + share)
