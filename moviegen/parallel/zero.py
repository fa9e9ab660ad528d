"""ZeRO (Rajbhandari et al. 2020): each rank keeps its part of the training state and borrows the rest when needed.

    stage 0  nothing is divided: gradients are summed over all ranks, every rank updates everything
    stage 1  optimizer state is divided: each rank updates its part of every weight, then the weights are gathered
    stage 2  gradients too: a micro-batch's gradients are summed and scattered at once, each rank keeps its part's sum
    stage 3  matrices too: each is gathered where a layer multiplies by it, in the forward and in the backward pass

A tensor is divided flat, padded to a multiple of the ranks. All ranks of the job share in it, those of a sequence-shard
group as well: they hold the same weights.

What a rank updates, its masters, is float32. A matrix that is not its own to update a rank has in the type of the
arithmetic alone: at stages 1 and 2 it holds the whole so, at 3 it gathers it so. Sums of gradients over the ranks are
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    """This rank's flat part of the sum of a tensor over all ranks, added up in float32."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.size, self.sum_shard = world.size, sum_shard(world)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.sum_shard(flat(x.astype(ms.float32), self.size))


class Whole(nn.Cell):
    """The tensor whose flat parts the ranks hold; `like` gives its shape, and the type in which they pass."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.AllGather()

    def construct(self, part: ms.Tensor, like: ms.Tensor) -> ms.Tensor:
        return ops.slice(self.gather(part.astype(like.dtype)), (0,), (like.size,)).reshape(like.shape)


class Gather(nn.Cell):
    """The matrix whose flat parts the ranks hold, in the type of the parts. It is not kept, but gathered again.

    Its gradient comes out as this rank's part of the sum over all ranks.
    """

    def __init__(self, world: World, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gather, self.slice, self.reshape = ops.AllGather(), ops.Slice(), ops.Reshape()
        self.sum_part = SumPart(world)
        self.shape, self.length = shape, int(np.prod(shape))
        for primitive in (self.gather, self.slice, self.reshape):
            primitive.recompute()

    def construct(self, part: ms.Tensor) -> ms.Tensor:
        """(ceil(out * in / ranks),) -> (out, in)."""
        return self.reshape(self.slice(self.gather(part), (0,), (self.length,)), self.shape)

    def bprop(self, part: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        return (self.sum_part(dout),)


class GatheredProduct(nn.Cell):
    """x W^T where each rank holds a flat part of W: W lives for one product, forward, and once more backward.

    It passes between the ranks in x's type. Its gradient comes out as this rank's part of the sum over all ranks.
    """

    def __init__(self, world: World, shape: tuple[int, ...], whole: Product) -> None:
        super().__init__()
        self.gather, self.of_whole, self.is_compiled = Gather(world, shape), whole, whole.is_compiled
        if self.is_compiled:
            self.fused = _GatheredProduct(self.gather, whole)
        self.cast, self.depend = ops.Cast(), ops.Depend()  # not `astype`, whose result would be kept
        self.cast.recompute()
        self.depend.recompute()

    def construct(self, x: ms.Tensor, part: ms.Tensor, before: ms.Tensor | None = None) -> ms.Tensor:
        """x (..., in), part float32 (ceil(out * in / ranks),) -> (..., out), in x's type.

        Nothing is gathered before `before` is there. Without it MindSpore gathers all that it can at once.
        """
        if before is not None:
            part = self.depend(part, ops.stop_gradient(before))
        if self.is_compiled and x.dtype == ms.float32:
            return self.fused(x, part)
        return self.of_whole(x, self.gather(self.cast(part, x.dtype)))


class _GatheredProduct(nn.Cell):
    """By a compiled operator, whose gradient MindSpore does not give what is computed again: it gathers by itself."""

    def __init__(self, gather: Gather, whole: Product) -> None:
        super().__init__()
        self.gather, self.of_whole, self.gradient = gather, whole, whole.fused.gradient

    def construct(self, x: ms.Tensor, part: ms.Tensor) -> ms.Tensor:
        return self.of_whole(x, self.gather(part))

    def bprop(self, x: ms.Tensor, part: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        dx, gradient = self.gradient(x, self.gather(ops.depend(part, dout)), dout)  # not before its turn
        return dx, self.gather.sum_part(gradient)


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


class Values(Protocol):
    """What the weights of a network are to be, of which a rank asks for no more than it holds."""

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray:
        """Of the flat values of a whole weight those from `start` to `stop`, float32."""


class Zero:
    """A network's training state divided over the ranks of a job.

    Args:
        network: its Cells that have a `weight` and multiply by it in a Cell `product` are divided at stage 3, and held
            in the type `dtype` of such a Cell at stages 1 and 2.
        stage: 0 to 3. One rank alone has nobody to divide with: stage 0.
        values: of the weights, where the network's are only declared (`no_init_parameters`): no rank ever holds more of
            them than it keeps, and one whole weight.
        is_trained: no: the network is asked only. Nothing is kept to be updated, and matrices, or parts of them, are
            held in the type `dtype` alone.

    Attributes:
        weights: name -> the network's own parameter; the first `num_divided` are this rank's parts of it (stage 3).
        masters: name -> what the optimizer updates: the weight itself, or this rank's part of it.
        shapes: name -> shape of the whole weight.
    """

    def __init__(
        self, network: nn.Cell, stage: int, world: World, values: Values | None = None, is_trained: bool = True
    ) -> None:
        self.stage, self.world = stage if world.size > 1 else 0, world
        declared = dict(network.parameters_and_names())
        self.shapes = {name: tuple(weight.shape) for name, weight in declared.items()}
        self._values = values or _held(declared)
        self._types = _multiplied_types(network) if self.stage in (1, 2) or not is_trained else {}
        divided = self._divide(network) if self.stage == 3 else set()
        # The last first, in the order in which gradients are ready: each is added to its sum and forgotten.
        parameters = dict(network.parameters_and_names())
        self.weights = {
            name: parameters[name] for name in sorted(reversed(parameters), key=lambda name: name not in divided)
        }
        self.num_divided = len(divided)
        self.masters = self._masters(divided) if self.stage and is_trained else dict(self.weights)
        if values is not None or self._types:
            self._fill(divided)
        del self._values, self._types
        self._gather = GatherOnHost() if self.stage else None

    def _divide(self, network: nn.Cell) -> set[str]:
        divided = set()
        for prefix, cell in _multiplying(network):
            name = f"{prefix}.weight"
            cell.product = GatheredProduct(self.world, self.shapes[name], cell.product)
            part = _tensor(self._own(name), self._types.get(name, ms.float32))
            cell.weight = Parameter(part, name=cell.weight.name)
            divided.add(name)
        return divided

    def _masters(self, divided: set[str]) -> dict[str, Parameter]:
        return {
            name: weight
            if name in divided
            else Parameter(ms.Tensor(self._own(name)), name=f"master.{name}", requires_grad=False)
            for name, weight in self.weights.items()
        }

    def _fill(self, divided: set[str]) -> None:
        """Gives the network the weights that it holds whole, in the type that multiplies where it is not updated."""
        for name in self.shapes.keys() - divided:
            whole = self._values(name, 0, int(np.prod(self.shapes[name]))).reshape(self.shapes[name])
            dtype = self._types.get(name, ms.float32)
            self.weights[name].set_dtype(dtype)
            self.weights[name].set_data(_tensor(whole, dtype))

    def _own(self, name: str) -> np.ndarray:
        """This rank's flat part of a weight that is still to be filled."""
        size = int(np.prod(self.shapes[name]))
        length = -(-size // self.world.size)
        start = min(self.world.rank * length, size)
        values = self._values(name, start, min(start + length, size))
        return np.pad(values, (0, length - values.size))

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
                self.weights[name].set_data(_tensor(self.whole(name, held), self.weights[name].dtype))


def _multiplying(network: nn.Cell) -> list[tuple[str, nn.Cell]]:
    """The Cells of a network that multiply by a weight, by name."""
    return [
        (name, cell) for name, cell in network.cells_and_names() if hasattr(cell, "product") and hasattr(cell, "weight")
    ]


def _multiplied_types(network: nn.Cell) -> dict[str, ms.Type]:
    """The type in which a network multiplies by each of its matrices."""
    return {f"{prefix}.weight": cell.dtype for prefix, cell in _multiplying(network) if hasattr(cell, "dtype")}


def _held(weights: Mapping[str, Parameter]) -> Values:
    """The values that a network has."""
    return lambda name, start, stop: weights[name].asnumpy().reshape(-1)[start:stop]


def _tensor(array: np.ndarray, dtype: ms.Type) -> ms.Tensor:
    return ms.Tensor(array) if dtype == ms.float32 else ms.Tensor(array).astype(dtype)
