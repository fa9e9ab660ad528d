"""Growth of the learned position tables from stage to stage (original report, Training Stages)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moviegen.runs.arrays import Arrays, CheckpointError

AXES = ("t", "h", "w")


# original report, Training Stages: tables grown from stage to stage
def grow_table(table: ArrayLike, length: int) -> np.ndarray:
    """A position table (L, D) interpolated linearly to (length, D) float32.

    Old position i becomes i * length / L: a table grown 2x holds the old one at its even rows, and rows past the last
    old position repeat it. A table of one row is repeated, so a one-frame input sees what it saw before.

    Raises:
        CheckpointError: the table would shrink.
    """
    table = np.asarray(table, np.float32)  # a file of half precision would be interpolated in it
    if length < len(table):
        raise CheckpointError(f"a position table of {len(table)} rows cannot shrink to {length}")
    places = np.arange(length) * len(table) / length
    below = np.minimum(places.astype(int), len(table) - 1)
    above = np.minimum(below + 1, len(table) - 1)
    share = (places - below)[:, None].astype(np.float32)
    return table[below] * (1 - share) + table[above] * share


def position_tables(arrays: Arrays) -> Arrays:
    """The three position tables among a transformer's weights, by name: T, H, W.

    Raises:
        CheckpointError: one is not there.
    """
    names = [f"pos_embedding_table_{axis}.embedding_table" for axis in AXES]
    if missing := [name for name in names if name not in arrays]:
        raise CheckpointError(f"no {missing[0]} among the weights: they are not a transformer's")
    return {name: arrays[name] for name in names}


def table_lengths(arrays: Arrays) -> tuple[int, int, int]:
    """What `max_size` (T, H, W) a transformer's weights are for."""
    frames, height, width = (table.shape[0] for table in position_tables(arrays).values())
    return frames, height, width


def grow_positions(arrays: Arrays, max_size: tuple[int, int, int]) -> Arrays:
    """A transformer's weights with its three position tables grown to `max_size` (T, H, W)."""
    tables = zip(position_tables(arrays).items(), max_size, strict=True)
    return {**arrays, **{name: grow_table(table, length) for (name, table), length in tables}}
