"""One optimizer update in three graphs: `Backward` once a micro-batch, `Reduce` and `Update` once an update.

At ZeRO stages 0 and 1 ranks exchange gradients once an update, in `Reduce`. At 2 and 3 `Backward` does so every
micro-batch: a rank has room for its part of the sums only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import mindspore as ms
from mindspore import Parameter, nn, ops

from moviegen.parallel.zero import SumPart, Whole, Zero
from moviegen.train.optim import AdamW, sum_of_squares

_add = ops.MultitypeFuncGraph("add")
_reduce = ops.MultitypeFuncGraph("reduce")
_assign = ops.MultitypeFuncGraph("assign")
_publish = ops.MultitypeFuncGraph("publish")
_clear = ops.MultitypeFuncGraph("clear")
_restart = ops.MultitypeFuncGraph("restart")


@_add.register("Tensor", "Tensor")
def _add_one(total: ms.Tensor, gradient: ms.Tensor) -> ms.Tensor:
    return ops.assign_add(total, gradient)


@_reduce.register("Function", "Tensor")
def _reduce_one(reduce: nn.Cell, gradient: ms.Tensor) -> ms.Tensor:
    return reduce(gradient)


@_assign.register("Tensor", "Tensor")
def _assign_one(target: ms.Tensor, value: ms.Tensor) -> ms.Tensor:
    return ops.assign(target, value)


@_publish.register("Function", "Tensor", "Tensor", "Tensor")
def _publish_one(whole: nn.Cell, after: ms.Tensor, weight: ms.Tensor, master: ms.Tensor) -> ms.Tensor:
    return ops.assign(weight, whole(ops.depend(master, after), weight))


@_clear.register("Tensor")
def _clear_one(total: ms.Tensor) -> ms.Tensor:
    return ops.assign(total, ops.zeros_like(total))


@_restart.register("Tensor", "Tensor")
def _restart_one(after: ms.Tensor, total: ms.Tensor) -> ms.Tensor:
    return ops.assign_sub(total, ops.depend(total, after))  # in place: as many zeros would be a copy of the model


class Gradients(nn.Cell):
    """The running sums that `Backward` fills, and the reduced gradients that `Update` uses.

    They are the same buffers but at ZeRO stage 1, where whole sums are reduced to parts.
    """

    def __init__(self, zero: Zero) -> None:
        super().__init__()
        self.sums = _zeros("gradient", zero.masters if zero.stage >= 2 else zero.weights)
        self.reduced = _zeros("reduced", zero.masters) if zero.stage == 1 else self.sums


class _ScaledLoss(nn.Cell):
    """The loss times a factor, then what the loss Cell returns."""

    def __init__(self, loss: nn.Cell, scale: Parameter, has_terms: bool) -> None:
        super().__init__()
        self.loss, self.scale, self.has_terms = loss, scale, has_terms

    def construct(self, *batch: ms.Tensor) -> tuple[ms.Tensor, ...]:
        values = self.loss(*batch)
        values = values if self.has_terms else (values,)
        return (values[0] * self.scale, *values)


class Backward(nn.Cell):
    """Runs a loss Cell and adds its gradients to the sums; compiled once for each batch shape.

    Args:
        loss: Cell whose first output is the scalar to minimise.
        has_terms: it returns more than that; only the first output is differentiated (without `has_aux` MindSpore
            differentiates the sum of all outputs).
    """

    def __init__(self, loss: nn.Cell, zero: Zero, gradients: Gradients, has_terms: bool) -> None:
        super().__init__()
        self.scale = Parameter(ms.Tensor(1.0, ms.float32), name="loss_scale", requires_grad=False)
        self.sums, self.num_divided = gradients.sums, zero.num_divided
        self.each, self.reduces = ops.HyperMap(), zero.stage >= 2 and zero.num_divided < len(zero.weights)
        self.sum_part = SumPart(zero.world) if self.reduces else None
        scaled = _ScaledLoss(loss, self.scale, has_terms)
        weights = ms.ParameterTuple(tuple(zero.weights.values()))
        self.value_and_grad = ops.value_and_grad(scaled, grad_position=None, weights=weights, has_aux=True)

    def construct(self, *batch: ms.Tensor) -> tuple[ms.Tensor, ...]:
        """Returns what the loss Cell returns, as a tuple."""
        values, gradients = self.value_and_grad(*batch)
        if self.reduces:  # gradients of divided weights arrive reduced
            whole = gradients[self.num_divided :]
            gradients = gradients[: self.num_divided] + self.each(ops.partial(_reduce, self.sum_part), whole)
        return ops.depend(values[1:], self.each(_add, self.sums, gradients))


class Reduce(nn.Cell):
    """Sums the gradients over ranks, where `Backward` has not, and measures them."""

    def __init__(self, zero: Zero, gradients: Gradients, share: float) -> None:
        super().__init__()
        self.sums, self.reduced = gradients.sums, gradients.reduced
        self.each, self.share = ops.HyperMap(), share
        self.reduces, self.has_parts = zero.world.size > 1 and zero.stage < 2, zero.stage > 0
        if zero.world.size > 1:
            self.reduce = SumPart(zero.world) if zero.stage else ops.AllReduce()
            self.total = ops.AllReduce()

    def construct(self) -> ms.Tensor:
        """The global norm of the mean gradient (times the loss scale)."""
        if not self.reduces:
            squares = sum_of_squares(self.reduced)
        else:
            values = self.each(ops.partial(_reduce, self.reduce), self.sums)
            squares = ops.depend(sum_of_squares(values), self.each(_assign, self.reduced, values))
        if self.has_parts:  # of the norm too, each rank has a part
            squares = self.total(squares)
        return ops.sqrt(squares) * self.share


class Update(nn.Cell):
    """Clips the mean gradient, updates, and starts the sums over."""

    def __init__(self, optimizer: AdamW, zero: Zero, gradients: Gradients, share: float, clip_norm: float) -> None:
        super().__init__()
        self.optimizer, self.num_divided = optimizer, zero.num_divided
        self.publishes = zero.stage > 0 and zero.num_divided < len(zero.weights)
        self.sums, self.reduced, self.each = gradients.sums, gradients.reduced, ops.HyperMap()
        self.weights = ms.ParameterTuple(tuple(zero.weights.values()))
        self.whole, self.share, self.clip_norm = Whole() if self.publishes else None, share, clip_norm

    def construct(self, lr: ms.Tensor, norm: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:
        """`norm` and the sums are those of the loss times `scale`."""
        clip = ops.minimum(self.clip_norm * scale / ops.maximum(norm, 1e-30), ms.Tensor(1.0, ms.float32))
        updated = self.optimizer(self.reduced, lr, clip * self.share / scale)
        if self.publishes:
            publish = ops.partial(_publish, self.whole, updated)
            masters = self.optimizer.weights[self.num_divided :]
            updated = ops.depend(updated, self.each(publish, self.weights[self.num_divided :], masters))
        return ops.depend(updated, self.each(ops.partial(_restart, updated), self.sums))


class Clear(nn.Cell):
    """Throws the gradients away: those of an overflow."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__()
        self.sums, self.each = gradients.sums, ops.HyperMap()

    def construct(self) -> tuple[ms.Tensor, ...]:
        return self.each(_clear, self.sums)


class Apply:
    """Turns the summed gradients into one update: mean over micro-batches and ranks, clipped by the global norm."""

    def __init__(
        self, optimizer: AdamW, zero: Zero, gradients: Gradients, micro_batches: int, clip_norm: float
    ) -> None:
        share = 1.0 / (micro_batches * zero.world.size)
        self.zero, self.optimizer, self.gradients = zero, optimizer, gradients
        self.reduce = Reduce(zero, gradients, share)
        self.update = Update(optimizer, zero, gradients, share, clip_norm)
        self.clear = Clear(gradients)

    def compile(self) -> None:
        """Compiles the graphs of an update ahead of the first."""
        one = ms.Tensor(1.0, ms.float32)
        self.reduce.compile()
        self.update.compile(one, one, one)

    def __call__(self, lr: float, scale: float = 1.0) -> float:
        """One update; a gradient that is not finite reaches no weight.

        Returns:
            the gradient's global norm before clipping.
        """
        norm = self.reduce()
        value = float(norm) / scale
        if math.isfinite(value):
            self.update(ms.Tensor(lr, ms.float32), norm, ms.Tensor(scale, ms.float32))
        else:
            self.clear()
        return value

    def bytes_held(self) -> dict[str, int]:
        """Bytes of this rank's buffers: weights, gradient sums, and moments with the parts of weights beside them."""
        weights = self.zero.weights
        beside = [master for name, master in self.zero.masters.items() if master is not weights[name]]
        return {
            "parameters": _bytes(weights.values()),
            "gradients": _bytes((*self.gradients.sums, *self.gradients.reduced)),
            "optimizer": _bytes((*self.optimizer.moment1, *self.optimizer.moment2, *beside)),
        }


def _bytes(buffers: Iterable[Parameter]) -> int:
    """Of all of them, each counted once."""
    return sum({id(buffer): buffer.nbytes for buffer in buffers}.values())


def _zeros(kind: str, like: dict[str, Parameter]) -> ms.ParameterTuple:
    return ms.ParameterTuple(
        tuple(
            Parameter(ops.zeros(one.shape, ms.float32), name=f"{kind}.{index}", requires_grad=False)
            for index, one in enumerate(like.values())
        )
    )
