"""Cells against what NumPy computes in float64."""

import mindspore as ms
import numpy as np
from mindspore import ops

RNG = np.random.default_rng(0)


def random(*shape):
    """Numbers of float32 in float64."""
    return RNG.standard_normal(shape).astype(np.float32).astype(np.float64)


def close(ours, wanted):
    """To 1e-5 of the largest number."""
    np.testing.assert_allclose(ours.asnumpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def values_and_gradients(cell, inputs, dy, *constants, dtype=ms.float32):
    """A Cell's output, and for the gradient dy of it the gradients of all inputs and then of the Cell's weights."""
    inputs, dy = [ms.Tensor(array, dtype) for array in inputs], ms.Tensor(dy, dtype)
    weights = ms.ParameterTuple(cell.trainable_params())

    def total(*inputs):
        return (cell(*inputs, *constants) * dy).sum()

    gradients = ops.grad(total, tuple(range(len(inputs))), weights or None)(*inputs)
    of_inputs, of_weights = gradients if weights else (gradients, ())
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    return [cell(*inputs, *constants), *of_inputs, *of_weights]


def compare(cell, inputs, dy, wanted, *constants):
    """The same are close to `wanted`."""
    for ours, truth in zip(values_and_gradients(cell, inputs, dy, *constants), wanted, strict=True):
        assert ours.shape == truth.shape
        close(ours, truth)
