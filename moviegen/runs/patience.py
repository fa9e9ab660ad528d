"""How long the rest of a program takes, and when that is longer than its user wants to wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from time import monotonic

from moviegen.config import ConfigError, Params

WARM_UP_SECONDS = 30  # before, a single slow file would decide
ENOUGH = 4  # items that were timed, besides the first of a kind, which also compiles


class Patience:
    """Watches a program that goes through clips, and ends it early where the rest would take too long.

    It foresees from what it has measured alone, and so not before it has met some of each kind: let kinds take turns.

    Args:
        params: `data.patience_hours` is the limit; null: there is none.
        what: is done to the items, for the message.
        whole: the kind of each item that there is; those of a kind take about as long.
        done: the kind of each that was done before.
        clips: how many the longest list has whose length `limit` limits.
        limit: the parameter to lessen the work by, for the message.
    """

    def __init__(
        self,
        params: Params,
        what: str,
        whole: Iterable[Hashable],
        clips: int,
        done: Iterable[Hashable] = (),
        limit: str = "data.max_clips",
    ) -> None:
        self.hours, self.what, self.clips, self.limit = params.data.patience_hours, what, clips, limit
        self.whole = Counter(whole)
        self.left = self.whole - Counter(done)
        self.timed: Counter[Hashable] = Counter()  # items of a kind, and the seconds they took, but for its first
        self.seconds: dict[Hashable, float] = defaultdict(float)
        self.started = self.last = monotonic()

    def done(self, kind: Hashable) -> None:
        """One more item is done.

        Raises:
            ConfigError: the rest takes longer than the limit; it says how long, and what to set.
        """
        now = monotonic()
        if kind in self.seconds:
            self.timed[kind] += 1
            self.seconds[kind] += now - self.last
        else:
            self.seconds[kind] = 0.0
        self.last = now
        self.left[kind] -= 1
        if self.hours is None or now - self.started < WARM_UP_SECONDS or self._unmet():
            return
        hours = self.foresee(self.left)
        if hours > self.hours:
            raise ConfigError(self._message(hours))

    def foresee(self, items: Counter[Hashable]) -> float:
        """Hours that so many items of each kind take."""
        rates = {kind: self.seconds[kind] / count for kind, count in self.timed.items() if count >= ENOUGH}
        return sum(items[kind] * rate for kind, rate in rates.items()) / 3600

    def _unmet(self) -> bool:
        """Whether there is more to do of some kind, and how long it takes is not known."""
        return any(count > ENOUGH and self.timed[kind] < ENOUGH for kind, count in self.left.items())

    def _message(self, hours: float) -> str:
        fitting = max(2, int(0.9 * self.clips * (self.hours or 0) / self.foresee(self.whole)))  # 0.9: rates vary
        return (
            f"{self.what} takes {hours:.1f} hours more at the speed of this machine, and data.patience_hours is "
            f"{self.hours:g}. Set {self.limit} to {fitting} or less, which takes so many clips of each list, evenly "
            f"over its classes; or, to wait, data.patience_hours to {hours * 1.2:.1f} or null"
        )
