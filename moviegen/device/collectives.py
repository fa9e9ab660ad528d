"""Communication between ranks, and the process group itself.

MindSpore's CPU backend has AllReduce and AllGather over the world group only; both exist on Ascend too, over HCCL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import mindspore as ms
from mindspore import nn, ops
from mindspore.communication import get_group_size, get_rank, init


@dataclass(frozen=True)
class World:
    """This process among the job's."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0


def join_world() -> World:
    """Joins the `msrun` job this process belongs to; a process started alone is a world of one."""
    if "MS_ROLE" not in os.environ:
        return World()
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


def barrier(world: World) -> None:
    """Waits for every rank. A program ends with one: a rank that leaves early breaks the others' last collective."""
    if world.size > 1:
        float(Average(world.size)(ms.Tensor(1, ms.float32)))
