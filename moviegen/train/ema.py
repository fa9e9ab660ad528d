"""The exponential moving average of the weights, which validation and sampling use instead of them (paper 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from moviegen.device.compiled import is_compiled
from moviegen.device.updates import MovingAverage, rising_decay
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import StoredArray


class EMA:
    """average = d * average + (1 - d) * weight, once an update.

    d is `decay`, or less at first (`rising_decay`): else a short run's average is mostly what it started from.

    By a compiled operator in the update's graph, or else on the host: on a card it takes none of its memory. Each rank
    averages what it holds: at ZeRO stages 1 to 3 its part of every weight.

    Attributes:
        in_graph: what takes an update into the average within its graph; None: `update` does, afterwards.
    """

    def __init__(self, zero: Zero, decay: float) -> None:
        self.zero, self.decay = zero, decay
        self.in_graph = MovingAverage(list(zero.masters.values()), decay) if is_compiled() else None
        self._on_host = {} if self.in_graph else {name: one.asnumpy().copy() for name, one in zero.masters.items()}

    def update(self, updates: float) -> None:
        """Takes the weights of one finished update into the average on the host; `updates` counts it too."""
        share = np.float32(1 - min(self.decay, rising_decay(updates)))
        for name, master in self.zero.masters.items():
            average = self._on_host[name]
            average += share * (master.asnumpy() - average)

    @property
    def averages(self) -> dict[str, np.ndarray]:
        """What this rank holds of them."""
        return (
            self._on_host
            if self.in_graph is None
            else dict(zip(self.zero.masters, self.in_graph.arrays(), strict=True))
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole averages; all ranks must ask together."""
        return {name: self.zero.whole(name, average) for name, average in self.averages.items()}

    def set_arrays(self, arrays: Mapping[str, np.ndarray | StoredArray]) -> None:
        """Takes whole averages, saved by any number of ranks; of those on disk this rank reads what it holds."""
        self._set(lambda name: self.zero.held(arrays[name]))

    def restart(self) -> None:
        """Begins at the weights as they are now."""
        self._set(lambda name: self.zero.masters[name].asnumpy().copy())

    def _set(self, held_of: Callable[[str], np.ndarray]) -> None:
        if self.in_graph is None:
            self._on_host = {name: held_of(name) for name in self.zero.masters}
        else:
            self.in_graph.set_arrays(map(held_of, self.zero.masters))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The network works with the averages; leaving, in whatever way, gives it its weights back."""
        weights = {name: master.asnumpy().copy() for name, master in self.zero.masters.items()}
        try:
            self.zero.set_masters(self.averages.__getitem__)
            yield
        finally:
            self.zero.set_masters(weights.__getitem__)
