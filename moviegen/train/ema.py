"""The exponential moving average of the weights, which validation and sampling use instead of them (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
import numpy as np

from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import Arrays


class EMA:
    """average = decay * average + (1 - decay) * weight, once an update, on the host: it takes no device memory.

    Each rank averages what it holds: at ZeRO stages 1 to 3 its part of every weight.
    """

    def __init__(self, zero: Zero, decay: float) -> None:
        self.zero, self.decay = zero, decay
        self.averages = {name: master.asnumpy().copy() for name, master in zero.masters.items()}

    def update(self) -> None:
        """Takes the weights of one finished update into the average."""
        for name, master in self.zero.masters.items():
            average = self.averages[name]
            average += np.float32(1 - self.decay) * (master.asnumpy() - average)

    def parts(self) -> dict[str, tuple[str, ms.Tensor]]:
        """Name -> name of the weight, this rank's part of its average."""
        return {name: (name, ms.Tensor(average)) for name, average in self.averages.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole averages; all ranks must ask together."""
        return {name: self.zero.whole(name, part) for name, (_, part) in self.parts().items()}

    def set_arrays(self, arrays: Arrays) -> None:
        """Takes whole averages, saved by any number of ranks."""
        for name in self.averages:
            whole = np.asarray(arrays[name])
            self.averages[name] = whole.copy() if self.zero.stage == 0 else self.zero.part(whole)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The network works with the averages; leaving, in whatever way, gives it its weights back."""
        weights = {name: master.asnumpy().copy() for name, master in self.zero.masters.items()}
        try:
            self.zero.set_masters(self.averages)
            yield
        finally:
            self.zero.set_masters(weights)
