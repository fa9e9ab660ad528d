"""A transformer's weights on disk, and the growth of its position tables from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from moviegen.config import DiTConfig
from moviegen.dit.model import DiT
from moviegen.weights import CheckpointError, assign, load_arrays, save_arrays, to_arrays

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


def save_dit(path: Path, dit: DiT) -> None:
    """Writes the weights, with the config in the file's metadata."""
    save_arrays(path, to_arrays(dict(dit.parameters_and_names())), {"dit_config": dit.config.model_dump_json()})


def load_dit(path: Path, config: DiTConfig) -> DiT:
    """A transformer of `config` with a file's weights, their position tables grown where `config` has larger ones.

    Raises:
        CheckpointError: the file is damaged, or of a transformer of another size.
    """
    arrays, _ = load_arrays(path)
    dit = DiT(config)
    assign(dict(dit.parameters_and_names()), grow_positions(arrays, config.max_size), str(path))
    return dit
