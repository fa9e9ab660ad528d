"""Communication between ranks, and the process group itself.

Over HCCL every operation is native. MindSpore's CPU backend has AllReduce and AllGather, over the world group only;
there the others are built from these two: the same numbers, more traffic.
"""

from __future__ import annotations

import functools
import os

import mindspore as ms
from mindspore import nn, ops
from mindspore.communication import create_group, get_group_size, get_rank, init

from moviegen.device import target
from moviegen.device.environment import DRY_RUN
from moviegen.device.world import World


def join_world() -> World:
    """Joins the `msrun` job this process belongs to; a process started alone is a world of one."""
    if "MS_ROLE" not in os.environ and DRY_RUN not in os.environ:  # of a simulated job msrun tells no role
        return World()
    return _member()


@functools.cache
def _member() -> World:
    """Joins once in a process, however many programs it computes."""
    init()
    return World(get_rank(), get_group_size())


class Average(nn.Cell):
    """The mean of a tensor over all ranks."""

    def __init__(self, world_size: int) -> None:
        super().__init__()
        self.world_size = world_size
        if world_size > 1:
            self.reduce = ops.AllReduce()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.reduce(x) / self.world_size if self.world_size > 1 else x


class SlicedSum(nn.Cell):
    """Reduce-scatter by all-reduce: of the sum over all ranks of a vector (size * n,), this rank's part (n,)."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.rank, self.size = world.rank, world.size
        self.reduce = ops.AllReduce()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        length = x.shape[0] // self.size
        return ops.slice(self.reduce(x), (self.rank * length,), (length,))  # half the time of a strided slice


def sum_shard(world: World) -> ops.ReduceScatter | SlicedSum:
    """Reduce-scatter of a vector over all ranks."""
    return ops.ReduceScatter() if target() == "Ascend" else SlicedSum(world)


class GroupGather(nn.Cell):
    """All-gather within a group: x -> (group size, *x.shape)."""

    def __init__(self, group: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.length = group[0], len(group)
        self.is_native = target() == "Ascend"
        self.gather = ops.AllGather(group=named(group)) if self.is_native else ops.AllGather()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        gathered = self.gather(x.reshape(1, *x.shape))
        if gathered.shape[0] == self.length:  # the group is all there is
            return gathered
        return ops.slice(gathered, (self.first, *[0] * x.ndim), (self.length, *x.shape))


class AllToAll(nn.Cell):
    """Each rank of a group keeps its part of axis `split` and receives the others' of it, joined along axis `join`.

    (B, a, b, d) with split 1 and join 2 and P ranks -> (B, a / P, P * b, d).
    """

    def __init__(self, group: tuple[int, ...], rank: int, split: int, join: int) -> None:
        super().__init__()
        self.place, self.size, self.split, self.join = group.index(rank), len(group), split, join
        self.is_native = target() == "Ascend"
        if self.is_native:
            self.exchange = ops.AlltoAll(len(group), split, join, named(group))
        else:
            self.gather = GroupGather(group)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.is_native:
            return self.exchange(x)
        batch, size, width = x.shape[0], self.size, x.shape[3]
        if self.split == 1:
            parts = x.reshape(batch, size, -1, x.shape[2] * width).swapaxes(0, 1)
        else:
            parts = x.reshape(batch, x.shape[1], size, -1).transpose(2, 0, 1, 3)
        received = self._received(parts)
        if self.split == 1:
            length = x.shape[1] // size
            return received.transpose(1, 2, 0, 3).reshape(batch, length, size * x.shape[2], width)
        return received.swapaxes(0, 1).reshape(batch, size * x.shape[1], -1, width)

    def _received(self, parts: ms.Tensor) -> ms.Tensor:
        """Parts for each rank of the group (P, ...) -> parts of each rank for this one (P, ...)."""
        gathered = self.gather(parts)
        received = ops.slice(gathered, (0, self.place, 0, 0, 0), (self.size, 1, *parts.shape[1:]))
        return received.reshape(parts.shape)


def named(group: tuple[int, ...]) -> str:
    """The name of a group of ranks, which is created when it is first asked for."""
    name = f"ranks {group[0]} to {group[-1]}"
    if name not in _created:
        create_group(name, list(group))
        _created.add(name)
    return name


_created: set[str] = set()


def barrier(world: World) -> None:
    """Waits for every rank. A program ends with one: a rank that leaves early breaks the others' last collective."""
    if world.size > 1:
        float(Average(world.size)(ms.Tensor(1, ms.float32)))
