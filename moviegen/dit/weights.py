"""A transformer's weights on disk."""

from __future__ import annotations

from pathlib import Path

from moviegen.dit.model import DiT
from moviegen.dit.positions import grow_positions
from moviegen.runs.arrays import Arrays, save_arrays, stored_tensors, unwrapped
from moviegen.runs.weights import assign, load_arrays, to_arrays

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


def load_weights(dit: DiT, path: Path, grow: bool = False) -> None:
    """Fills a transformer with the weights of a file, ours or published: `.safetensors`, MindSpore's `.ckpt`, `.npz`.

    Args:
        grow: stretch position tables that are smaller than this transformer's: a stage starts so from the one before.
            Every row is another place then, which only training makes good.

    Raises:
        CheckpointError: the file is damaged or of another kind, its tables are larger, or names are missing, unexpected
            or of another shape; they are listed.
    """
    arrays = read_weights(path)
    if grow:
        arrays = grow_positions(arrays, dit.config.max_size)
    assign(dict(dit.parameters_and_names()), arrays, str(path))


def read_weights(path: Path) -> Arrays:
    """A file's weights by the names here; published ones lie inside a training wrapper: `network.model.layers.0...`.

    Those of a safetensors file are read one by one when they are asked for: 30B's take 117 GB, on each rank.

    Raises:
        CheckpointError: the file is damaged or of another kind.
    """
    arrays: Arrays = unwrapped(stored_tensors(path) if path.suffix == ".safetensors" else load_arrays(path)[0])
    anchor = "latent_embedder.proj.weight"
    prefix = next((name.removesuffix(anchor) for name in arrays if name.endswith(anchor)), "")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}
