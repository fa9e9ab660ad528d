"""One optimizer update, in as few graphs as can be.

    one micro-batch   `WholeUpdate`: gradients, their exchange between ranks, the update
    more of them      `Backward` once a micro-batch: gradients, added to sums; `Finish`: their exchange, the update

At ZeRO stages 0 and 1 ranks exchange gradients once an update. At 2 and 3 they do so in every micro-batch: a rank has
room for its part of the sums only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.device.collectives import Average
from moviegen.device.updates import SumOfSquares, held_type
from moviegen.parallel.zero import SumPart, Whole, Zero
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW

_add = ops.MultitypeFuncGraph("add")
_hold = ops.MultitypeFuncGraph("hold")
_reduce = ops.MultitypeFuncGraph("reduce")
_publish = ops.MultitypeFuncGraph("publish")
_clear = ops.MultitypeFuncGraph("clear")
_restart = ops.MultitypeFuncGraph("restart")


@_add.register("Tensor", "Tensor")
def _add_one(total: ms.Tensor, gradient: ms.Tensor) -> ms.Tensor:
    if total.dtype == ms.float32:
        return ops.assign_add(total, gradient.astype(ms.float32))
    return ops.assign(total, (total.astype(ms.float32) + gradient).astype(total.dtype))


@_hold.register("TypeType", "Tensor")
def _hold_one(dtype: ms.Type, gradient: ms.Tensor) -> ms.Tensor:
    return gradient.astype(dtype)


@_reduce.register("Function", "Tensor")
def _reduce_one(reduce: nn.Cell, gradient: ms.Tensor) -> ms.Tensor:
    return reduce(gradient)


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
    """The running sums of an update's gradients, or of this rank's parts of them, in `dtype` (ZeRO 2 and 3)."""

    def __init__(self, zero: Zero, dtype: ms.Type = ms.float32) -> None:
        super().__init__()
        like, dtype = (zero.masters, held_type(dtype)) if zero.stage >= 2 else (zero.weights, ms.float32)
        self.sums = ms.ParameterTuple(
            tuple(
                Parameter(ops.zeros(one.shape, dtype), name=f"gradient.{index}", requires_grad=False)
                for index, one in enumerate(like.values())
            )
        )


class LossAndGradients(nn.Cell):
    """What a loss Cell returns, and the gradients of the first of it, times the loss scale.

    Args:
        has_terms: the Cell returns more than the scalar to minimise (without `has_aux` MindSpore differentiates the
            sum of all outputs).
    """

    def __init__(self, loss: nn.Cell, zero: Zero, has_terms: bool) -> None:
        super().__init__()
        self.scale = Parameter(ms.Tensor(1.0, ms.float32), name="loss_scale", requires_grad=False)
        scaled = _ScaledLoss(loss, self.scale, has_terms)
        weights = ms.ParameterTuple(tuple(zero.weights.values()))
        self.value_and_grad = ops.value_and_grad(scaled, grad_position=None, weights=weights, has_aux=True)

    def construct(self, *batch: ms.Tensor) -> tuple[tuple[ms.Tensor, ...], tuple[ms.Tensor, ...]]:
        values, gradients = self.value_and_grad(*batch)
        return values[1:], gradients


class _ScaledLoss(nn.Cell):
    """The loss times a factor, then what the loss Cell returns."""

    def __init__(self, loss: nn.Cell, scale: Parameter, has_terms: bool) -> None:
        super().__init__()
        self.loss, self.scale, self.has_terms = loss, scale, has_terms

    def construct(self, *batch: ms.Tensor) -> tuple[ms.Tensor, ...]:
        values = self.loss(*batch)
        values = values if self.has_terms else (values,)
        return (values[0] * self.scale, *values)


class Exchange(nn.Cell):
    """The sum of every gradient over the ranks in float32; of it this rank's part, where ZeRO divides anything.

    Args:
        dtype: in which what comes out is held.
    """

    def __init__(self, zero: Zero, dtype: ms.Type = ms.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.each, self.num_divided = ops.HyperMap(), zero.num_divided
        self.exchanges = zero.world.size > 1 and zero.num_divided < len(zero.weights)
        if self.exchanges:
            self.reduce = SumPart(zero.world) if zero.stage else ops.AllReduce()

    def construct(self, gradients: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        if self.exchanges:
            whole = gradients[self.num_divided :]  # those of divided weights arrive reduced
            gradients = gradients[: self.num_divided] + self.each(ops.partial(_reduce, self.reduce), whole)
        return self.each(ops.partial(_hold, self.dtype), gradients)


class Update(nn.Cell):
    """Clips the mean gradient by its global norm and updates; one that is not finite changes nothing.

    Args:
        share: what makes a mean of a sum over micro-batches and ranks.
        average: of the weights, which follows the update.
    """

    def __init__(self, optimizer: AdamW, zero: Zero, share: float, clip_norm: float, average: nn.Cell | None) -> None:
        super().__init__()
        self.average = average
        self.optimizer, self.num_divided, self.each = optimizer, zero.num_divided, ops.HyperMap()
        self.squares, self.share, self.clip_norm = SumOfSquares(), share, clip_norm
        self.has_parts = zero.stage > 0
        if self.has_parts:
            self.total = ops.AllReduce()
        self.weights = ms.ParameterTuple(tuple(zero.weights.values()))
        self.whole = Whole() if zero.stage and zero.num_divided < len(zero.weights) else None

    def construct(self, sums: tuple[ms.Tensor, ...], lr: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:
        """Takes summed gradients of the loss times `scale`; returns the mean gradient's norm before clipping."""
        squares = self.squares(sums)
        if self.has_parts:  # of the norm too, each rank has a part
            squares = self.total(squares)
        norm = ops.sqrt(squares) * self.share / scale
        clip = ops.minimum(self.clip_norm / ops.maximum(norm, 1e-30), ms.Tensor(1.0, ms.float32))
        factor = ops.select(ops.isfinite(norm), clip * self.share / scale, ms.Tensor(0.0, ms.float32))
        updated = self.optimizer(sums, lr, factor)
        if self.average is not None:
            number = ops.depend(self.optimizer.updates, updated)
            updated = ops.depend(updated, self.average(ops.depend(factor, updated), number))
        if self.whole is not None:
            publish, masters = ops.partial(_publish, self.whole, updated), self.optimizer.weights[self.num_divided :]
            updated = ops.depend(updated, self.each(publish, self.weights[self.num_divided :], masters))
        return ops.depend(norm, updated)


class WholeUpdate(nn.Cell):
    """An update of one micro-batch in one graph, which keeps no sums; compiled once for each batch shape."""

    def __init__(self, gradients: LossAndGradients, exchange: Exchange, update: Update, average: Average) -> None:
        super().__init__()
        self.gradients, self.exchange, self.update, self.average = gradients, exchange, update, average

    def construct(self, lr: ms.Tensor, *batch: ms.Tensor) -> ms.Tensor:
        """What the loss Cell returns, its mean over the ranks, and then the gradient's norm: float32 (terms + 1,)."""
        terms, gradients = self.gradients(*batch)
        terms = self.average(ops.stack(terms))
        # Nothing may read a weight once it is updated in place. All that reads one leads to a gradient, of which the
        # update needs every one, or to the terms, which it is made to wait for here.
        gradients = ops.depend(self.exchange(gradients), terms)
        norm = self.update(gradients, lr, self.gradients.scale)
        return ops.concat((terms, norm.reshape(1)))


class Backward(nn.Cell):
    """Runs a loss Cell and adds its gradients to the sums; compiled once for each batch shape.

    Args:
        loss: Cell whose first output is the scalar to minimise.
        has_terms: it returns more than that.
    """

    def __init__(self, loss: nn.Cell, zero: Zero, gradients: Gradients, has_terms: bool) -> None:
        super().__init__()
        self.gradients, self.each = LossAndGradients(loss, zero, has_terms), ops.HyperMap()
        self.scale, self.sums = self.gradients.scale, gradients.sums
        self.exchange = Exchange(zero) if zero.stage >= 2 else None

    def construct(self, *batch: ms.Tensor) -> tuple[ms.Tensor, ...]:
        """Returns what the loss Cell returns, as a tuple."""
        terms, gradients = self.gradients(*batch)
        if self.exchange is not None:
            gradients = self.exchange(gradients)
        return ops.depend(terms, self.each(_add, self.sums, gradients))


class Finish(nn.Cell):
    """The update with the sums, which then start over; those that are not finite are left for `Clear`."""

    def __init__(self, zero: Zero, gradients: Gradients, update: Update, scale: Parameter) -> None:
        super().__init__()
        self.sums, self.update, self.scale, self.each = gradients.sums, update, scale, ops.HyperMap()
        self.exchange = Exchange(zero) if zero.stage < 2 else None

    def construct(self, lr: ms.Tensor) -> ms.Tensor:
        """Returns the norm that `Update` does."""
        sums = self.sums if self.exchange is None else self.exchange(self.sums)
        norm = self.update(sums, lr, self.scale)
        return ops.depend(norm, self.each(ops.partial(_restart, norm), self.sums))


class Clear(nn.Cell):
    """Throws the sums of an overflow away, from which nothing can be subtracted."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__()
        self.sums, self.each = gradients.sums, ops.HyperMap()

    def construct(self) -> tuple[ms.Tensor, ...]:
        return self.each(_clear, self.sums)


class Step:
    """What the host calls: an update from its micro-batches, mean over them and over the ranks, clipped.

    Args:
        loss: Cell whose first output is the scalar to minimise, in float32 like the others it may return.
        has_terms: it returns others.
        clip_norm: the largest global norm that a mean gradient keeps.
        ema: follows every update.
        gradient_dtype: in which this rank's part of the gradients waits for the update.
    """

    def __init__(
        self,
        loss: nn.Cell,
        zero: Zero,
        optimizer: AdamW,
        micro_batches: int,
        clip_norm: float,
        has_terms: bool,
        ema: EMA | None = None,
        gradient_dtype: ms.Type = ms.float32,
    ) -> None:
        self.zero, self.optimizer, self.ema = zero, optimizer, ema
        self.average, share = Average(zero.world.size), 1.0 / (micro_batches * zero.world.size)
        update = Update(optimizer, zero, share, clip_norm, ema.in_graph if ema else None)
        self.whole, self.sums = None, ()
        if micro_batches == 1:
            gradients = LossAndGradients(loss, zero, has_terms)
            exchange = Exchange(zero, gradient_dtype)
            self.whole, self.scale = WholeUpdate(gradients, exchange, update, self.average), gradients.scale
        else:
            buffers = Gradients(zero, gradient_dtype)
            self.backward, self.sums = Backward(loss, zero, buffers, has_terms), buffers.sums
            self.scale = self.backward.scale
            self.finish, self.clear = Finish(zero, buffers, update, self.scale), Clear(buffers)

    def compile(self, batch: Sequence[ms.Tensor]) -> None:
        """Compiles what a micro-batch of a new shape needs, ahead of it, and what is not compiled of the rest."""
        rate = ms.Tensor(1.0, ms.float32)
        if self.whole is not None:
            self.whole.compile(rate, *batch)
            return
        self.backward.compile(*batch)
        if not self.finish.compile_cache:
            self.finish.compile(rate)

    def __call__(self, batches: Sequence[Sequence[ms.Tensor]], lr: float, scale: float = 1.0) -> np.ndarray:
        """One update; a gradient that is not finite reaches no weight, no moment and no count of updates.

        Args:
            scale: of the loss, so that small gradients do not vanish; the result is that of the loss itself.

        Returns:
            what the loss Cell returned, on average, and then the gradient's global norm before clipping.
        """
        self.scale.set_data(ms.Tensor(scale, ms.float32))
        rate = ms.Tensor(lr, ms.float32)
        values = self._summed(batches, rate) if self.whole is None else self.whole(rate, *batches[0]).asnumpy()
        if self.ema and self.ema.in_graph is None and np.isfinite(values[-1]):
            self.ema.update(float(self.optimizer.updates.asnumpy()))
        return values

    def _summed(self, batches: Sequence[Sequence[ms.Tensor]], rate: ms.Tensor) -> np.ndarray:
        terms = np.mean([[float(term) for term in self.backward(*batch)] for batch in batches], 0)
        norm = self.finish(rate).asnumpy()
        if not np.isfinite(norm):
            self.clear()
        return np.append(self.average(ms.Tensor(terms, ms.float32)).asnumpy(), norm)

    def bytes_held(self) -> dict[str, int]:
        """Bytes of this rank's buffers: weights, gradient sums, and moments with the parts of weights beside them."""
        weights = self.zero.weights
        beside = [master for name, master in self.zero.masters.items() if master is not weights[name]]
        return {
            "parameters": _bytes(weights.values()),
            "gradients": _bytes(self.sums),
            "optimizer": _bytes((*self.optimizer.moment1, *self.optimizer.moment2, *beside)),
        }


def _bytes(buffers: Iterable[Parameter]) -> int:
    return sum(buffer.nbytes for buffer in buffers)
