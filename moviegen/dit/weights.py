"""A transformer's weights on disk."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms

from moviegen.config import DiTConfig
from moviegen.dit.model import DiT, read_weights
from moviegen.dit.positions import table_lengths
from moviegen.weights import Arrays, assign, save_arrays, to_arrays

WEIGHTS, EMA_WEIGHTS = "dit.safetensors", "dit_ema.safetensors"


def for_sampling(folder: Path) -> Path:
    """The weights a stage left for sampling: their average where it kept one."""
    average = folder / EMA_WEIGHTS
    return average if average.is_file() else folder / WEIGHTS


def save_dit(path: Path, dit: DiT, arrays: Arrays | None = None) -> None:
    """Writes the weights, with the config in the file's metadata.

    Args:
        arrays: other weights than the network's, or whole ones where it holds only its rank's part.
    """
    arrays = arrays or to_arrays(dict(dit.parameters_and_names()))
    save_arrays(path, arrays, {"dit_config": dit.config.model_dump_json()})


def load_dit(path: Path, config: DiTConfig, dtype: ms.Type = ms.float32) -> DiT:
    """A transformer of `config` with a file's weights; its position tables are as long as the file's.

    Args:
        dtype: of the arithmetic.

    Raises:
        CheckpointError: as `DiT.load_weights`, but for the lengths of the tables.
    """
    arrays = read_weights(path)
    dit = DiT(config.model_copy(update={"max_size": table_lengths(arrays)}), dtype=dtype)
    assign(dict(dit.parameters_and_names()), arrays, str(path))
    return dit
