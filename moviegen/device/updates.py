"""The length of all gradients as one vector, and AdamW over all tensors of a network, each in two forms.

On CPU they are operators of `operators.cpp`, one pass over memory each; where those are not compiled, and on Ascend,
they are MindSpore's own, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.device import target
from moviegen.device.compiled import is_compiled, operator

_squares = ops.MultitypeFuncGraph("squares")
_float32 = ops.MultitypeFuncGraph("float32")


@_squares.register("Function", "Tensor")
def _squares_one(squares: nn.Cell, tensor: ms.Tensor) -> ms.Tensor:
    return squares(tensor)


@_float32.register("Tensor")
def _float32_one(tensor: ms.Tensor) -> ms.Tensor:
    return tensor.astype(ms.float32)


class _SquaredLength(nn.Cell):
    """Of one tensor as a vector. On CPU by a matrix product: a quarter of the time of a product and a reduction."""

    def __init__(self) -> None:
        super().__init__()
        self.is_native, self.product = target() == "Ascend", ops.MatMul(transpose_b=True)

    def construct(self, tensor: ms.Tensor) -> ms.Tensor:
        tensor = tensor.astype(ms.float32)
        if self.is_native:
            return (tensor * tensor).sum()
        row = tensor.reshape(1, -1)
        return self.product(row, row).reshape(())


class SumOfSquares(nn.Cell):
    """The squared length of all tensors as one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.each, self.is_compiled = _SquaredLength(), ops.HyperMap(), is_compiled()
        if self.is_compiled:
            self.fused = operator("sum_of_squares", lambda *shapes: (1,))

    def construct(self, tensors: tuple[ms.Tensor, ...]) -> ms.Tensor:
        """float32 or bfloat16 tensors of any shapes -> float32 scalar."""
        if self.is_compiled:
            return self.fused(*self.each(_float32, tensors)).reshape(())
        return ops.addn(self.each(ops.partial(_squares, self.one), tensors))


def held_type(dtype: ms.Type) -> ms.Type:
    """The type of a buffer that holds numbers of `dtype` from step to step: on CPU nothing assigns to bfloat16."""
    return dtype if target() == "Ascend" else ms.float32


def zero_moments(name: str, weights: Mapping[str, Parameter], dtype: ms.Type = ms.float32) -> ms.ParameterTuple:
    """Moments of weights before the first update, all zero.

    Compiled: one vector of all. MindSpore looks at each parameter at each step, and three quarters of them would be
    moments: 4 ms of a step of 30.
    """
    dtype = held_type(dtype)
    sizes = {name: (sum(weight.size for weight in weights.values()),)} if is_compiled() else {
        f"{name}.{weight}": parameter.shape for weight, parameter in weights.items()
    }  # fmt: skip
    return ms.ParameterTuple(
        tuple(Parameter(ops.zeros(shape, dtype), name=moment, requires_grad=False) for moment, shape in sizes.items())
    )


def split_moments(moments: ms.ParameterTuple, weights: Sequence[Parameter]) -> Iterator[np.ndarray]:
    """What `zero_moments` made, by weight, float32, one after the other."""
    if is_compiled():
        yield from _split(moments[0], weights)
    else:
        yield from (moment.astype(ms.float32).asnumpy() for moment in moments)


def set_moments(moments: ms.ParameterTuple, parts: Iterable[np.ndarray]) -> None:
    """The inverse of `split_moments`."""
    if is_compiled():
        parts = [_joined(parts, moments[0].size)]
    for moment, part in zip(moments, parts, strict=True):
        given = ms.Tensor.from_numpy(part)
        moment.set_data(given if moment.dtype == ms.float32 else given.astype(moment.dtype))


def _split(vector: ms.Tensor, like: Sequence[Parameter]) -> list[np.ndarray]:
    parts = np.split(vector.asnumpy(), np.cumsum([one.size for one in like])[:-1])
    return [part.reshape(one.shape) for part, one in zip(parts, like, strict=True)]


def _joined(arrays: Iterable[np.ndarray], size: int) -> np.ndarray:
    """One vector of all, each of which need not be there before its turn."""
    vector, start = np.empty(size, np.float32), 0
    for array in arrays:
        vector[start : start + array.size] = array.reshape(-1)
        start += array.size
    return vector


def _writing(name: str) -> ops.Custom:
    """An operator that changes inputs. Unless told, MindSpore takes what is read after it for what was read before."""
    custom = operator(name, lambda *shapes: (1,))
    custom.add_prim_attr("side_effect_mem", True)
    return custom


Number = TypeVar("Number", float, ms.Tensor)


def rising_decay(updates: Number) -> Number:
    """The largest decay of an average after so many updates: one of a few does not remember where it started."""
    return (1 + updates) / (10 + updates)


class MovingAverage(nn.Cell):
    """The averages of weights, in one vector, moved by a compiled operator within the graph of an update.

    Args:
        decay: average = d * average + (1 - d) * weight, where d is `decay`, or `rising_decay` while that is less.
    """

    def __init__(self, weights: Sequence[Parameter], decay: float) -> None:
        super().__init__()
        self.weights, self.decay = ms.ParameterTuple(tuple(weights)), decay
        start = ms.Tensor(_joined((weight.asnumpy() for weight in weights), sum(weight.size for weight in weights)))
        self.averages = Parameter(start, name="averages", requires_grad=False)
        self.fused = _writing("moving_average")

    def construct(self, factor: ms.Tensor, updates: ms.Tensor) -> ms.Tensor:
        """In place; nothing changes where `factor`, that of the update's gradients, is 0. It must wait for the update.

        Args:
            updates: how many there have been, this one too.

        Returns:
            something that is there when all is done.
        """
        share = 1 - ops.minimum(ms.Tensor(self.decay, ms.float32), rising_decay(updates))
        return self.fused(*self.weights, self.averages, share.reshape(1), factor)

    def arrays(self) -> list[np.ndarray]:
        """The average of each weight."""
        return _split(self.averages, self.weights)

    def set_arrays(self, arrays: Iterable[np.ndarray]) -> None:
        """The inverse of `arrays`."""
        self.averages.set_data(ms.Tensor.from_numpy(_joined(arrays, self.averages.size)))


class AdamWUpdate(nn.Cell):
    """One update of AdamW (Loshchilov and Hutter 2019) in place.

    Weights and second moments are float32, first moments and gradients float32 or bfloat16, which is then how they are
    held: all is computed in float32. On CPU a bfloat16 moment is float32 rounded to it, as nothing there assigns such.

    Args:
        weight_decays: of each weight.
        moment_dtype: of the first moment.
    """

    def __init__(
        self,
        weight_decays: Sequence[float],
        betas: tuple[float, float],
        eps: float,
        moment_dtype: ms.Type = ms.float32,
    ) -> None:
        super().__init__()
        self.is_compiled, self.moment_dtype = is_compiled(), moment_dtype
        if self.is_compiled:
            self.fused, self.each = _writing("adamw"), ops.HyperMap()
        else:
            self.own = _AdamWUpdate(weight_decays, betas, eps, moment_dtype)
        self.weight_decays, self.constants = ms.Tensor(weight_decays, ms.float32), ms.Tensor([*betas, eps], ms.float32)

    def construct(
        self,
        weights: tuple[Parameter, ...],
        moment1: tuple[Parameter, ...],
        moment2: tuple[Parameter, ...],
        gradients: tuple[ms.Tensor, ...],
        updates: Parameter,
        lr: ms.Tensor,
        factor: ms.Tensor,
    ) -> ms.Tensor:
        """Updates with the gradients times `factor`, which is 0 where one is not finite: then nothing changes.

        Args:
            updates: how many there have been; counted here.

        Returns:
            something that is there when all is done.
        """
        if not self.is_compiled:
            return self.own(weights, moment1, moment2, gradients, updates, lr, factor)
        gradients = self.each(_float32, gradients)
        constants = (self.weight_decays, self.constants, lr, factor, updates)
        done = self.fused(*weights, *moment1, *moment2, *gradients, *constants)
        if self.moment_dtype == ms.float32:
            return done
        rounded = ops.depend(moment1[0], done).astype(self.moment_dtype).astype(ms.float32)
        return ops.depend(done, ops.assign(moment1[0], rounded))


class _RoundedMoment(nn.Cell):
    """What `ops.AdamWeightDecay` does, with a first moment that is rounded to a type."""

    def __init__(self, moment_dtype: ms.Type) -> None:
        super().__init__()
        self.moment_dtype = moment_dtype

    def construct(self, weight, first, second, step, beta1, beta2, eps, decay, gradient) -> tuple:  # noqa: ANN001
        before = ops.depend(first, gradient).astype(ms.float32)
        moment = beta1 * before + (1 - beta1) * gradient
        square = beta2 * ops.depend(second, gradient) + (1 - beta2) * gradient * gradient
        moved = weight - step * (moment / (ops.sqrt(square) + eps) + decay * weight)
        return (
            ops.assign(first, moment.astype(self.moment_dtype).astype(first.dtype)),
            ops.assign(second, square),
            ops.assign(weight, moved),
        )


class _AdamWUpdate(nn.Cell):
    """Weight by weight, each after the one before: what an update needs beside its result is there for one alone.

    MindSpore's fused kernel, which takes float32 moments, has no bias correction: the corrected step, epsilon and decay
    are handed to it. Without a branch: each in the loop deepens what is compiled, and 1B's weights are as many as the
    compiler's limit lets pass without. A product that takes 0 times NaN for 0, no step, and moments that keep all of
    what they were.
    """

    def __init__(
        self, weight_decays: Sequence[float], betas: tuple[float, float], eps: float, moment_dtype: ms.Type
    ) -> None:
        super().__init__()
        self.weight_decays = tuple(ms.Tensor(decay, ms.float32) for decay in weight_decays)
        self.beta1, self.beta2 = (ms.Tensor(beta, ms.float32) for beta in betas)
        self.zero, self.one, self.eps = ms.Tensor(0, ms.float32), ms.Tensor(1, ms.float32), ms.Tensor(eps, ms.float32)
        self.update = ops.AdamWeightDecay() if moment_dtype == ms.float32 else _RoundedMoment(moment_dtype)
        self.scaled = ops.MulNoNan()

    def construct(self, weights, moment1, moment2, gradients, updates, lr, factor) -> ms.Tensor:  # noqa: ANN001
        happens = factor > self.zero
        number = updates + self.one
        correction1 = self.one - ops.pow(self.beta1, number)
        correction2 = ops.sqrt(self.one - ops.pow(self.beta2, number))
        step = ops.select(happens, lr * correction2 / correction1, self.zero)
        beta1, beta2 = ops.select(happens, self.beta1, self.one), ops.select(happens, self.beta2, self.one)
        eps, decay_scale = self.eps * correction2, correction1 / correction2
        done = factor
        for place in range(len(weights)):
            weight, first, second = weights[place], moment1[place], moment2[place]
            gradient = self.scaled(ops.depend(gradients[place], done).astype(ms.float32), factor)
            decay = ops.depend(self.weight_decays[place] * decay_scale, done)
            done = self.update(weight, first, second, step, beta1, beta2, eps, decay, gradient)
        counted = ops.assign_add(updates, ops.select(happens, self.one, self.zero))
        return ops.depend(counted, done)
