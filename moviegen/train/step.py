"""One optimizer update in two graphs: `Backward` once a micro-batch, `Apply` once an update."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, nn, ops

from moviegen.train.optim import AdamW, global_norm

_add = ops.MultitypeFuncGraph("add")
_reduce = ops.MultitypeFuncGraph("average")
_scale = ops.MultitypeFuncGraph("scale")
_clear = ops.MultitypeFuncGraph("clear")


@_add.register("Tensor", "Tensor")
def _add_one(total: ms.Tensor, gradient: ms.Tensor) -> ms.Tensor:
    return ops.assign_add(total, gradient)


@_reduce.register("Function", "Tensor")
def _reduce_one(reduce: ops.AllReduce, gradient: ms.Tensor) -> ms.Tensor:
    return reduce(gradient)


@_scale.register("Tensor", "Tensor")
def _scale_one(factor: ms.Tensor, gradient: ms.Tensor) -> ms.Tensor:
    return gradient * factor


@_clear.register("Tensor", "Tensor")
def _clear_one(after: ms.Tensor, total: ms.Tensor) -> ms.Tensor:
    return ops.assign(total, ops.depend(ops.zeros_like(total), after))


class Accumulators(nn.Cell):
    """The gradients' running sums, shared by `Backward` and `Apply`."""

    def __init__(self, weights: ms.ParameterTuple) -> None:
        super().__init__()
        self.sums = ms.ParameterTuple(
            tuple(
                Parameter(ops.zeros(weight.shape, ms.float32), name=f"gradient.{index}", requires_grad=False)
                for index, weight in enumerate(weights)
            )
        )


class Backward(nn.Cell):
    """Runs a loss Cell and adds its gradients to the accumulators; compiled once for each batch shape.

    Args:
        loss: Cell whose first output is the scalar to minimise.
        has_terms: it returns more than that; only the first output is differentiated (without `has_aux` MindSpore
            differentiates the sum of all outputs).
    """

    def __init__(self, loss: nn.Cell, weights: ms.ParameterTuple, accumulators: Accumulators, has_terms: bool) -> None:
        super().__init__()
        self.loss = loss
        self.sums = accumulators.sums
        self.each = ops.HyperMap()
        self.value_and_grad = ops.value_and_grad(loss, grad_position=None, weights=weights, has_aux=has_terms)

    def construct(self, *batch: ms.Tensor) -> tuple[ms.Tensor, ...]:
        """Returns what the loss Cell returns."""
        values, gradients = self.value_and_grad(*batch)
        return ops.depend(values, self.each(_add, self.sums, gradients))


class Apply(nn.Cell):
    """Averages the accumulated gradients over micro-batches and ranks, clips, updates, and clears them.

    Ranks speak once an update, however many micro-batches it had.
    """

    def __init__(
        self, optimizer: AdamW, accumulators: Accumulators, micro_batches: int, clip_norm: float, world: int
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.sums = accumulators.sums
        self.world = world
        self.reduce = ops.AllReduce() if world > 1 else None
        self.each = ops.HyperMap()
        self.share = ms.Tensor(1.0 / (micro_batches * world), ms.float32)
        self.clip_norm = ms.Tensor(clip_norm, ms.float32)

    def construct(self, lr: ms.Tensor) -> ms.Tensor:
        """Returns the gradients' global norm before clipping."""
        gradients = self.each(ops.partial(_scale, self.share), self.sums)
        if self.world > 1:
            gradients = self.each(ops.partial(_reduce, self.reduce), gradients)
        norm = global_norm(gradients)
        factor = self.clip_norm / ops.maximum(norm, self.clip_norm)
        updated = self.optimizer(self.each(ops.partial(_scale, factor), gradients), lr)
        return ops.depend(norm, self.each(ops.partial(_clear, updated), self.sums))
