"""A transformer's weights on disk."""

from __future__ import annotations

from pathlib import Path

from moviegen.config import DiTConfig
from moviegen.dit.model import DiT
from moviegen.weights import Arrays, save_arrays, to_arrays

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


def load_dit(path: Path, config: DiTConfig) -> DiT:
    """A transformer of `config` with a file's weights; see `DiT.load_weights`."""
    dit = DiT(config)
    dit.load_weights(path)
    return dit
