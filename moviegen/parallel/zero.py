"""ZeRO (Rajbhandari et al. 2020): each rank keeps its part of the training state and borrows the rest when needed.

    stage 0  nothing is divided: gradients are summed over all ranks, every rank updates everything
    stage 1  optimizer state is divided: each rank updates its part of every weight, then the weights are gathered
    stage 2  gradients too: a micro-batch's gradients are summed and scattered at once, each rank keeps its part's sum
    stage 3  matrices too: each is gathered where a layer multiplies by it, in the forward and in the backward pass

A tensor is divided flat, padded to a multiple of the ranks. All ranks of the job share in it, those of a sequence-shard
group as well: they hold the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.device.collectives import sum_shard
from moviegen.device.kernels import Product
from moviegen.device.world import World


def flat(x: ms.Tensor, ranks: int) -> ms.Tensor:
    """x as a vector, padded with zeros to a multiple of `ranks`.

    Without a branch: the compiler keeps one, also a constant one, until after it looks for what is assigned.
    """
    vector = x.reshape(-1)
    longer = ops.concat((vector, ops.zeros((ranks,), vector.dtype)))
    return ops.slice(longer, (0,), (-(-vector.shape[0] // ranks) * ranks,))


class SumPart(nn.Cell):
    """This rank's flat part of the sum of a tensor over all ranks."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.size, self.sum_shard = world.size, sum_shard(world)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.sum_shard(flat(x, self.size))


class Whole(nn.Cell):
    """The tensor whose flat parts the ranks hold; `like` gives its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.AllGather()

    def construct(self, part: ms.Tensor, like: ms.Tensor) -> ms.Tensor:
        return ops.slice(self.gather(part), (0,), (like.size,)).reshape(like.shape)


class GatheredProduct(nn.Cell):
    """x W^T where each rank holds a flat part of W: W lives for one product, forward, and once more backward.

    The weight's gradient comes out as this rank's part of the sum over all ranks.
    """

    def __init__(self, world: World, shape: tuple[int, ...], whole: Product) -> None:
        super().__init__()
        self.gather, self.sum_part = ops.AllGather(), SumPart(world)
        self.shape, self.length, self.of_whole = shape, int(np.prod(shape)), whole
        self.is_compiled = whole.is_compiled
        if self.is_compiled:
            self.fused_gradient = whole.fused.gradient
        self.product, self.product_ta = ops.MatMul(), ops.MatMul(transpose_a=True)
        self.cast = ops.Cast()  # `astype` is in no Cell, and left out of its recomputation: the whole would be kept

    def construct(self, x: ms.Tensor, part: ms.Tensor) -> ms.Tensor:
        """x (..., in), part float32 (ceil(out * in / ranks),) -> (..., out), in x's type."""
        return self.of_whole(x, self._whole(part, x.dtype))

    def bprop(self, x: ms.Tensor, part: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        weight = self._whole(ops.depend(part, dout), x.dtype)  # not before its turn
        if self.is_compiled and x.dtype == ms.float32:
            dx, gradient = self.fused_gradient(x, weight, dout)
            return dx, self.sum_part(gradient)
        of_rows = dout.reshape(-1, dout.shape[-1])
        gradient = self.product_ta(of_rows, x.reshape(-1, x.shape[-1])).astype(part.dtype)
        return self.product(of_rows, weight).reshape(x.shape), self.sum_part(gradient)

    def _whole(self, part: ms.Tensor, dtype: ms.Type) -> ms.Tensor:
        return self.cast(ops.slice(self.gather(part), (0,), (self.length,)).reshape(self.shape), dtype)


class GatherOnHost(nn.Cell):
    """The flat parts of all ranks, one after the other.

    Called with arrays: a graph is compiled for each Parameter it is given, and for each length; so parts are filled up
    to whole BLOCKs. At tiny's size a first checkpoint took 20 s without.
    """

    BLOCK = 1 << 16

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.AllGather()

    def construct(self, part: ms.Tensor) -> ms.Tensor:
        return self.gather(part)

    def whole(self, part: np.ndarray) -> np.ndarray:
        """float32 (n,) of each rank -> (ranks * n,); all ranks must ask together."""
        filled = np.zeros(-(-part.size // self.BLOCK) * self.BLOCK, np.float32)
        filled[: part.size] = part
        return self(ms.Tensor(filled)).asnumpy().reshape(-1, filled.size)[:, : part.size].reshape(-1)


class OnDisk(Protocol):
    """An array of which a flat interval can be read by itself."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def interval(self, start: int, stop: int) -> np.ndarray: ...


class Zero:
    """A network's training state divided over the ranks of a job.

    Args:
        network: at stage 3 its Cells that have a `weight` and multiply by it in a Cell `product` are divided.
        stage: 0 to 3. One rank alone has nobody to divide with: stage 0.

    Attributes:
        weights: name -> the network's own parameter; the first `num_divided` are this rank's parts of it (stage 3).
        masters: name -> what the optimizer updates: the weight itself, or this rank's part of it.
        shapes: name -> shape of the whole weight.
    """

    def __init__(self, network: nn.Cell, stage: int, world: World) -> None:
        self.stage, self.world = stage if world.size > 1 else 0, world
        self.shapes = {name: tuple(weight.shape) for name, weight in network.parameters_and_names()}
        divided = self._divide(network) if self.stage == 3 else set()
        # The last first, in the order in which gradients are ready: each is added to its sum and forgotten.
        parameters = dict(network.parameters_and_names())
        self.weights = {
            name: parameters[name] for name in sorted(reversed(parameters), key=lambda name: name not in divided)
        }
        self.num_divided = len(divided)
        self.masters = dict(self.weights) if self.stage == 0 else self._masters(divided)
        self._gather = GatherOnHost() if self.stage else None

    def _divide(self, network: nn.Cell) -> set[str]:
        divided = set()
        for prefix, cell in network.cells_and_names():
            if hasattr(cell, "product") and hasattr(cell, "weight"):
                weight = cell.weight
                cell.product = GatheredProduct(self.world, tuple(weight.shape), cell.product)
                cell.weight = Parameter(ms.Tensor(self.part(weight.asnumpy())), name=weight.name)
                divided.add(f"{prefix}.weight")
        return divided

    def _masters(self, divided: set[str]) -> dict[str, Parameter]:
        return {
            name: weight
            if name in divided
            else Parameter(ms.Tensor(self.part(weight.asnumpy())), name=f"master.{name}", requires_grad=False)
            for name, weight in self.weights.items()
        }

    def interval(self, size: int) -> tuple[int, int]:
        """From where to before where, of a flat array of so many numbers, this rank's part goes; the rest is padding.

        Where nothing is divided: what it writes to a checkpoint.
        """
        length = -(-size // self.world.size)
        return min(self.world.rank * length, size), min((self.world.rank + 1) * length, size)

    def part(self, array: np.ndarray | OnDisk) -> np.ndarray:
        """This rank's flat part of a whole array, padded (a copy); of one on disk nothing else is read."""
        size = math.prod(array.shape)
        start, stop = self.interval(size)
        part = np.zeros(-(-size // self.world.size), array.dtype)
        if isinstance(array, np.ndarray):
            part[: stop - start] = array.reshape(-1)[start:stop]
        else:
            part[: stop - start] = array.interval(start, stop)
        return part

    def held(self, array: np.ndarray | OnDisk) -> np.ndarray:
        """What this rank holds of a whole array: its part, or all of it where nothing is divided (a copy)."""
        return self.part(array) if self.stage else np.array(array)

    def written(self, name: str, held: np.ndarray) -> tuple[int, np.ndarray]:
        """What this rank writes to a checkpoint of a master, or of what is shaped like it: where it begins, numbers.

        Without padding, and a copy. The ranks' together are the whole flat array, each number once.
        """
        start, stop = self.interval(math.prod(self.shapes[name]))
        flat_held = held.reshape(-1)
        return start, (flat_held[: stop - start] if self.stage else flat_held[start:stop]).copy()

    def whole(self, name: str, held: np.ndarray) -> np.ndarray:
        """The whole array of what ranks hold of a master, or of what is shaped like it; all ranks must ask together."""
        if self._gather is None:
            return held
        shape = self.shapes[name]
        return self._gather.whole(held)[: math.prod(shape)].reshape(shape)

    def arrays(self) -> dict[str, np.ndarray]:
        """The network's whole weights; all ranks must ask together."""
        return {name: self.whole(name, master.asnumpy()) for name, master in self.masters.items()}

    def set_masters(self, held_of: Callable[[str], np.ndarray]) -> None:
        """Takes what this rank holds of other weights, asked for by name, one after the other; all ranks together.

        The network gets the whole ones.
        """
        for name, master in self.masters.items():
            held = held_of(name)
            master.set_data(ms.Tensor(held))
            if self.weights[name] is not master:
                self.weights[name].set_data(ms.Tensor(self.whole(name, held)))
