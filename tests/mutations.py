"""Good files made bad, by seed: bytes flipped, overwritten, cut out, glued in, the file cut off."""

from collections.abc import Iterator

import numpy as np


def mutations(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged copies of a file's content; the same for the same seed."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 5))):
            start = int(rng.integers(len(damaged) or 1))
            stop = min(len(damaged), start + int(rng.integers(1, 65)))
            kind = rng.integers(5)
            if kind == 0 and damaged:
                damaged[start] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                damaged[start:stop] = rng.bytes(stop - start)
            elif kind == 2:
                del damaged[start:stop]
            elif kind == 3:
                damaged[start:start] = damaged[: stop - start] + rng.bytes(8)
            else:
                del damaged[int(rng.integers(len(damaged) or 1)) :]
        yield bytes(damaged)
