"""Growth of the learned position tables from stage to stage (original report, Training Stages)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moviegen.weights import CheckpointError

AXES = ("t", "h", "w")


def grow_table(table: np.ndarray, length: int) -> np.ndarray:
    """A position table (L, D) interpolated linearly to (length, D).

    Old position i becomes i * length / L: a table grown 2x holds the old one at its even rows, and rows past the last
    old position repeat it. A table of one row is repeated, so a one-frame input sees what it saw before.

    Raises:
        CheckpointError: the table would shrink.
    """
    if length < len(table):
        raise CheckpointError(f"a position table of {len(table)} rows cannot shrink to {length}")
    places = np.arange(length) * len(table) / length
    below = np.minimum(places.astype(int), len(table) - 1)
    above = np.minimum(below + 1, len(table) - 1)
    share = (places - below)[:, None].astype(table.dtype)
    return table[below] * (1 - share) + table[above] * share


def grow_positions(arrays: Mapping[str, np.ndarray], max_size: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A transformer's weights with its three position tables grown to `max_size` (T, H, W)."""
    grown = dict(arrays)
    for axis, length in zip(AXES, max_size, strict=True):
        name = f"pos_embedding_table_{axis}.embedding_table"
        if name not in grown:
            raise CheckpointError(f"no {name} among the weights: they are not a transformer's")
        grown[name] = grow_table(grown[name], length)
    return grown
