"""Which clips the batches of a stage hold: each clip once an epoch, in however small a bucket it is.

A step's ranks compute one graph, so they need as many tokens, and no more than that: ranks may have clips of different
buckets of as many tokens. What does not fill a batch waits for the next epoch's clips, so nothing is taken twice to
fill one up. After any number of epochs the clips of a bucket have been seen equally often, give or take one, and none
more often than there were epochs (see `Turns.longest_wait`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import numpy as np

from moviegen.config import Bucket, visual_tokens

Part = tuple[Bucket, np.ndarray]  # what one rank takes: clips of one bucket, by their places in it


class Turns:
    """The batches of one medium, one after the other, of all ranks together.

    They follow from the arguments alone: all that come before one are worked out with it, once.

    Args:
        counts: clips of each bucket.
        size: samples of a rank.
        ranks: that draw samples of their own.
        seed: of a random stream for these batches alone.
    """

    def __init__(self, counts: Mapping[Bucket, int], size: int, ranks: int, seed: Sequence[int]) -> None:
        self.counts, self.size, self.ranks, self.seed = dict(sorted(counts.items())), size, ranks, seed
        self.epoch_ends: list[int] = []  # batches until then
        self._batches: list[list[Part]] = []
        self._clips = {bucket: np.zeros(0, int) for bucket in self.counts}  # that wait, in their order
        self._parts: dict[int, deque[Bucket]] = {visual_tokens(*bucket): deque() for bucket in self.counts}

    def __call__(self, turn: int) -> list[Part]:
        """What each rank takes in a batch, which is counted from 0."""
        while turn >= len(self._batches):
            self._add_epoch()
        return self._batches[turn]

    def times_seen(self, turns: int) -> dict[Bucket, np.ndarray]:
        """How often each clip of each bucket is in the first so many batches."""
        seen = {bucket: np.zeros(count, int) for bucket, count in self.counts.items()}
        for turn in range(turns):
            for bucket, places in self(turn):
                np.add.at(seen[bucket], places, 1)
        return seen

    def longest_wait(self, bucket: Bucket) -> int:
        """By how many times a clip of a bucket lags, at most, behind the number of epochs.

        Less than a batch of a bucket's clips waits, and what waits is the end of the epochs' permutations.
        """
        return -(-(self.size * self.ranks - 1) // self.counts[bucket])

    def _add_epoch(self) -> None:
        rng = np.random.default_rng([*self.seed, len(self.epoch_ends)])
        waiting = Counter(bucket for parts in self._parts.values() for bucket in parts)
        full: list[Bucket] = []
        for bucket, count in self.counts.items():
            clips, order = self._clips[bucket], rng.permutation(count)
            waits = np.isin(order, clips)  # such a clip comes last: not twice in one batch
            self._clips[bucket] = np.concatenate([clips, order[~waits], order[waits]])
            full += [bucket] * (len(self._clips[bucket]) // self.size - waiting[bucket])
        for place in rng.permutation(len(full)):
            self._parts[visual_tokens(*full[place])].append(full[place])
        batches = [batch for parts in self._parts.values() for batch in self._filled(parts)]
        self._batches += [batches[place] for place in rng.permutation(len(batches))]
        self.epoch_ends.append(len(self._batches))

    def _filled(self, parts: deque[Bucket]) -> list[list[Part]]:
        """Batches of buckets of as many tokens, as far as there are parts for all ranks."""
        count = len(parts) // self.ranks
        return [[self._take(parts.popleft()) for _ in range(self.ranks)] for _ in range(count)]

    def _take(self, bucket: Bucket) -> Part:
        taken, self._clips[bucket] = np.split(self._clips[bucket], [self.size])
        return bucket, taken
