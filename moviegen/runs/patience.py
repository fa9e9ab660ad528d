"""How long the rest of a program takes, and when that is longer than its user wants to wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from time import monotonic

from moviegen.config import ConfigError, Params

WARM_UP_SECONDS = 30  # in less time a single slow file would decide
MIN_TIMED = 4  # items of a kind to foresee from, besides its first, which also compiles


class Patience:
    """Watches a program that goes through clips, and ends it early where the rest would take too long.

    It foresees only once it has timed some items of every kind: have kinds take turns.

    Args:
        params: `data.patience_hours` is the limit; null: there is none.
        activity: what is done to the items, for the message: "encoding the clips".
        kinds: the kind of each item; items of one kind take about equally long.
        clips: the length of the longest list that `parameter` shortens.
        done: the kinds of the items that an earlier attempt has done.
        parameter: the one to shorten the work by, for the message.
    """

    def __init__(
        self,
        params: Params,
        activity: str,
        kinds: Iterable[Hashable],
        clips: int,
        done: Iterable[Hashable] = (),
        parameter: str = "data.max_clips",
    ) -> None:
        self.hours, self.activity = params.data.patience_hours, activity
        self.clips, self.parameter = clips, parameter
        self.total = Counter(kinds)
        self.left = self.total - Counter(done)
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
        if self.hours is None or now - self.started < WARM_UP_SECONDS or self._is_unforeseeable():
            return
        hours = self.foresee(self.left)
        if hours > self.hours:
            raise ConfigError(self._message(hours))

    def foresee(self, items: Counter[Hashable]) -> float:
        """Hours that so many items of each kind take."""
        rates = {kind: self.seconds[kind] / count for kind, count in self.timed.items() if count >= MIN_TIMED}
        return sum(items[kind] * rate for kind, rate in rates.items()) / 3600

    def _is_unforeseeable(self) -> bool:
        """Whether much is left of a kind of which too few items were timed."""
        return any(count > MIN_TIMED and self.timed[kind] < MIN_TIMED for kind, count in self.left.items())

    def _message(self, hours: float) -> str:
        fitting = max(2, int(0.9 * self.clips * (self.hours or 0) / self.foresee(self.total)))  # 0.9: rates vary
        return (
            f"{self.activity} takes {hours:.3g} hours more at the speed of this machine, and data.patience_hours is "
            f"{self.hours:g}. Set {self.parameter} to {fitting} or less, which takes so many clips of each list; "
            f"or, to wait, data.patience_hours to {hours * 1.2:.3g} or null"
        )
