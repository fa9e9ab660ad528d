"""Random weights that leave nothing trivial, and what counts as equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

TOLERANCE = 1e-4


def random_weights(shapes: Mapping[str, Iterable[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Kernels that keep the scale of what passes, norm scales around 1, small biases; nothing is 0 or 1.

    Args:
        shapes: name -> shape; outputs are the first axis of a kernel, as in PyTorch and in MindSpore.
    """
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        shape = tuple(shape)
        if len(shape) > 1:
            array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith((".gamma", ".weight")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0, 0.2, shape)
        arrays[name] = array.astype(np.float32)
    return arrays


def assert_equal(ours: np.ndarray, reference: np.ndarray) -> None:
    """Equal to 1e-4 of the reference's largest absolute value."""
    assert ours.shape == tuple(reference.shape)
    reference = np.asarray(reference)
    scale = np.abs(reference).max()
    assert scale > 0 and np.abs(ours - reference).max() <= TOLERANCE * scale
