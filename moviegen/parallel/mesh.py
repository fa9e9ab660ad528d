"""How a job's ranks divide into data-parallel groups and sequence shards: world = data x shards.

The ranks of one shard group are neighbours, as they talk most: with 8 ranks and 4 shards, ranks 0-3 hold the tokens of
one batch, ranks 4-7 of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Mesh:
    """One rank's place.

    Args:
        rank: of `size` in the whole job.
        shards: how many ranks share the tokens of a sample.

    Raises:
        ValueError: the job cannot be divided so.
    """

    rank: int = 0
    size: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        if self.size % self.shards:
            raise ValueError(f"{self.size} workers cannot form groups of {self.shards} sequence shards")

    @property
    def data_size(self) -> int:
        """How many different batches there are in a step."""
        return self.size // self.shards

    @property
    def data_rank(self) -> int:
        """Which of them this rank works on."""
        return self.rank // self.shards

    @property
    def shard_rank(self) -> int:
        """Which part of the tokens this rank holds."""
        return self.rank % self.shards

    @property
    def shard_group(self) -> tuple[int, ...]:
        """The ranks that share this rank's tokens, itself among them."""
        first = self.data_rank * self.shards
        return tuple(range(first, first + self.shards))

    def turns(self, items: Sequence[Item], in_step: bool) -> Iterator[tuple[Item, bool]]:
        """What this rank's group takes of items in turn, and whether that is its own.

        Args:
            in_step: all ranks exchange within an item, so that each must work as often as the others: a group that has
                none left repeats the last one, which another takes.
        """
        for first in range(0, len(items), self.data_size):
            place = first + self.data_rank
            if in_step or place < len(items):
                yield items[min(place, len(items) - 1)], place < len(items)
