"""AdamW, gradient clipping, and the learning rate's warm-up and halving on plateau."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from moviegen.config import LRScheduler, Optimizer
from moviegen.device.updates import AdamWUpdate, set_moments, split_moments, zero_moments


def decays(name: str, shape: Sequence[int]) -> bool:
    """Whether weight decay applies: to matrices and kernels; not to biases, norms and tables of positions."""
    return len(shape) > 1 and "table" not in name


class AdamW(nn.Cell):
    """AdamW (Loshchilov and Hutter 2019): what is updated, its moments, and the count of updates.

    Args:
        parameters: structural name -> what is updated: a weight, or this rank's part of it.
        shapes: structural name -> shape of the whole weight.
        moment_dtype: in which the first moment is held; the second is float32.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        config: Optimizer,
        shapes: Mapping[str, Sequence[int]],
        moment_dtype: ms.Type = ms.float32,
    ) -> None:
        super().__init__()
        self.names = tuple(parameters)
        self.weights = ms.ParameterTuple(tuple(parameters.values()))
        self.moment1, self.moment2 = (
            zero_moments("moment1", parameters, moment_dtype),
            zero_moments("moment2", parameters),
        )
        self.updates = Parameter(ms.Tensor(0, ms.float32), name="updates", requires_grad=False)
        decay = tuple(config.weight_decay if decays(name, shapes[name]) else 0.0 for name in parameters)
        self.update = AdamWUpdate(decay, config.betas, config.eps, moment_dtype)

    def construct(self, gradients: tuple[ms.Tensor, ...], lr: ms.Tensor, factor: ms.Tensor) -> ms.Tensor:
        """One update in place with the gradients times `factor`, of which 0 means none; returns a scalar when done."""
        return self.update(self.weights, self.moment1, self.moment2, gradients, self.updates, lr, factor)

    def moments(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """`moment1.<name>` and `moment2.<name>`, name of the weight, what this rank holds of the moment."""
        for order, moments in (("moment1", self.moment1), ("moment2", self.moment2)):
            for name, moment in zip(self.names, split_moments(moments, self.weights), strict=True):
                yield f"{order}.{name}", name, moment

    def restart(self) -> None:
        """As before the first update."""
        for moment in (*self.moment1, *self.moment2):
            moment.set_data(ops.zeros(moment.shape, moment.dtype))
        self.updates.set_data(ms.Tensor(0, ms.float32))

    def set_moments(self, moment_of: Callable[[str], np.ndarray]) -> None:
        """Takes what this rank holds of each moment, asked for by the names of `moments`, one after the other."""
        for order, moments in (("moment1", self.moment1), ("moment2", self.moment2)):
            set_moments(moments, (moment_of(f"{order}.{name}") for name in self.names))


# original report, Learning Rate Scheduling
class LearningRate:
    """Linear warm-up, then `factor` times less whenever the validation loss has plateaued.

    A validation improves if it is below the best by more than the share `min_delta`; after `patience` ones that do not,
    the rate is cut and the count starts over (original report, Learning Rate Scheduling).
    """

    def __init__(self, config: LRScheduler) -> None:
        self.config = config
        self.scale = 1.0
        self.best = math.inf
        self.waited = 0

    def at(self, step: int) -> float:
        """The rate of update `step`, counted from 1."""
        warm = min(1.0, step / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        return max(self.config.lr * self.scale, min(self.config.min_lr, self.config.lr)) * warm

    def observe(self, validation_loss: float) -> bool:
        """Takes one validation loss into account; whether the rate is cut for it."""
        if validation_loss < self.best * (1 - self.config.min_delta):
            self.best, self.waited = validation_loss, 0
            return False
        self.waited += 1
        if self.waited < self.config.patience:
            return False
        self.scale, self.waited = self.scale * self.config.factor, 0
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "best": self.best if math.isfinite(self.best) else None, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.scale, self.waited = state["scale"], state["waited"]
        self.best = math.inf if state["best"] is None else state["best"]


class LossScale:
    """What a float16 loss is multiplied by, so that small gradients do not vanish.

    Halved at an overflow, whose update is left out; doubled after GROW_AFTER updates without one. A scale of 1 stays:
    other arithmetic needs none, and a gradient that is not finite is then an error.
    """

    GROW_AFTER = 2000
    FLOAT16 = 2.0**16  # to start with

    @classmethod
    def first(cls, dtype: ms.Type) -> float:
        """That of the first step of arithmetic of a type."""
        return cls.FLOAT16 if dtype == ms.float16 else 1.0

    def __init__(self, value: float = 1.0) -> None:
        self.value, self.is_fixed, self.good = value, value == 1.0, 0

    def observe(self, is_finite: bool) -> bool:
        """Takes one update into account; whether training may go on."""
        if self.is_fixed:
            return is_finite
        self.good = self.good + 1 if is_finite else 0
        if not is_finite:
            self.value /= 2
        elif self.good == self.GROW_AFTER:
            self.value, self.good = self.value * 2, 0
        return self.value >= 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"value": self.value, "good": self.good, "is_fixed": self.is_fixed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`; that of a run in other arithmetic, where one of the two is fixed, changes nothing."""
        if state["is_fixed"] == self.is_fixed:
            self.value, self.good = state["value"], state["good"]
