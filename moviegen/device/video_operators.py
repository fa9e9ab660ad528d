"""The autoencoder's compiled operators (`operators.cpp`) with their gradients, for the layers of `video`."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen.device import compiled

Shape = tuple[int, ...]


class Linear(nn.Cell):
    """A compiled convolution and its gradients: x, weight and bias to y.

    Args:
        name: of the operator; its gradients' are `<name>_input` and `<name>_weights`.
        out_shape: y's shape, from those of x and the weight.
    """

    def __init__(self, name: str, out_shape: Callable[[Shape, Shape], Shape]) -> None:
        super().__init__()
        self.forward = compiled.operator(name, lambda x, weight, bias: out_shape(x, weight))
        self.of_input = compiled.operator(f"{name}_input", lambda weight, dy, x: x)
        self.of_weights = compiled.operator(f"{name}_weights", lambda x, dy, weight, bias: (weight, bias), outputs=2)

    def construct(self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return self.forward(x, weight, bias)

    def bprop(
        self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        dweight, dbias = self.of_weights(x, dout, weight, bias)
        return self.of_input(weight, dout, x), dweight, dbias


class Mixing(nn.Cell):
    """A `Linear` over time: x (B*T, C, H, W), weight, bias and a tensor of shape (T) to y."""

    def __init__(self, name: str, stride: int = 1, repeat: int = 1) -> None:
        super().__init__()
        shape = _mixed(stride, repeat)
        self.forward = compiled.operator(name, lambda x, weight, bias, frames: shape(x, weight, frames))
        self.of_input = compiled.operator(f"{name}_input", lambda weight, dy, x, frames: x)
        self.of_weights = compiled.operator(
            f"{name}_weights", lambda x, dy, weight, bias, frames: (weight, bias), outputs=2
        )

    def construct(self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, frames: ms.Tensor) -> ms.Tensor:
        return self.forward(x, weight, bias, frames)

    def bprop(
        self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, frames: ms.Tensor, out: ms.Tensor, dout: ms.Tensor
    ) -> tuple[ms.Tensor, ...]:
        dweight, dbias = self.of_weights(x, dout, weight, bias, frames)
        return self.of_input(weight, dout, x, frames), dweight, dbias, ops.zeros_like(frames)


class MixingOnto(nn.Cell):
    """A `Mixing` that keeps T, whose output is added to `base`."""

    def __init__(self, name: str, mixing: Mixing) -> None:
        super().__init__()
        self.forward = compiled.operator(f"{name}_onto", lambda x, weight, bias, base, frames: base)
        self.of_input, self.of_weights = mixing.of_input, mixing.of_weights

    def construct(
        self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, base: ms.Tensor, frames: ms.Tensor
    ) -> ms.Tensor:
        return self.forward(x, weight, bias, base, frames)

    def bprop(
        self,
        x: ms.Tensor,
        weight: ms.Tensor,
        bias: ms.Tensor,
        base: ms.Tensor,
        frames: ms.Tensor,
        out: ms.Tensor,
        dout: ms.Tensor,
    ) -> tuple[ms.Tensor, ...]:
        dweight, dbias = self.of_weights(x, dout, weight, bias, frames)
        return self.of_input(weight, dout, x, frames), dweight, dbias, dout, ops.zeros_like(frames)


def _mixed(stride: int, repeat: int) -> Callable[[Shape, Shape, Shape], Shape]:
    """The shape of y from those of x, the weight and `frames`."""

    def shape(x: Shape, weight: Shape, frames: Shape) -> Shape:
        return (x[0] // frames[0] * -(-frames[0] * repeat // stride), weight[0], *x[2:])

    return shape


@ops.constexpr
def filled(num_frames: int, value: float) -> ms.Tensor:
    """A constant of shape (T): by it an operator knows T, and no x is reshaped, which takes MindSpore long."""
    return ms.Tensor(np.full(num_frames, value, np.float32))


class CompiledGroupNorm(nn.Cell):
    """Group norm of (B*T, C, H, W), of which the backward pass keeps x, and a mean and a scale for each group."""

    def __init__(self, name: str, num_groups: int) -> None:
        super().__init__()

        def shapes(x: Shape, gamma: Shape, beta: Shape, eps: Shape) -> tuple[Shape, Shape]:
            return x, (x[0] // eps[0], num_groups, 2)

        self.forward = compiled.operator(name, shapes, outputs=2)
        self.backward = compiled.operator(
            f"{name}_gradient", lambda x, gamma, beta, statistics, dy: (x, gamma, beta), outputs=3
        )

    def construct(self, x: ms.Tensor, gamma: ms.Tensor, beta: ms.Tensor, eps: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return self.forward(x, gamma, beta, eps)

    def bprop(
        self,
        x: ms.Tensor,
        gamma: ms.Tensor,
        beta: ms.Tensor,
        eps: ms.Tensor,
        out: tuple[ms.Tensor, ...],
        dout: tuple[ms.Tensor, ...],
    ) -> tuple[ms.Tensor, ...]:
        dx, dgamma, dbeta = self.backward(x, gamma, beta, out[1], dout[0])
        return dx, dgamma, dbeta, ops.zeros_like(eps)


class SharedGroupNorm(CompiledGroupNorm):
    """Gives x too, for its other uses, whose gradient the backward pass adds."""

    def __init__(self, name: str, num_groups: int) -> None:
        super().__init__(name, num_groups)
        self.backward = compiled.operator(
            f"{name}_gradient_onto", lambda x, gamma, beta, statistics, dy, base: (x, gamma, beta), outputs=3
        )

    def construct(self, x: ms.Tensor, gamma: ms.Tensor, beta: ms.Tensor, eps: ms.Tensor) -> tuple[ms.Tensor, ...]:
        y, statistics = self.forward(x, gamma, beta, eps)
        return y, statistics, x

    def bprop(
        self,
        x: ms.Tensor,
        gamma: ms.Tensor,
        beta: ms.Tensor,
        eps: ms.Tensor,
        out: tuple[ms.Tensor, ...],
        dout: tuple[ms.Tensor, ...],
    ) -> tuple[ms.Tensor, ...]:
        dx, dgamma, dbeta = self.backward(x, gamma, beta, out[1], dout[0], dout[2])
        return dx, dgamma, dbeta, ops.zeros_like(eps)
