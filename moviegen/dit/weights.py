"""A transformer's weights on disk."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from pydantic import ValidationError

from moviegen import device
from moviegen.config import DiTConfig, Params
from moviegen.dit.model import DiT
from moviegen.dit.positions import grow_positions, table_lengths
from moviegen.runs.arrays import Arrays, CheckpointError, save_arrays, stored_tensors, unwrapped
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


def load_dit(path: Path, config: DiTConfig, dtype: ms.Type = ms.float32) -> DiT:
    """A transformer of `config` with a file's weights; its position tables are as long as the file's.

    Args:
        dtype: of the arithmetic.

    Raises:
        CheckpointError: as `load_weights`, but for the lengths of the tables.
    """
    arrays = read_weights(path)
    dit = DiT(config.model_copy(update={"max_size": table_lengths(arrays)}), dtype=dtype)
    assign(dict(dit.parameters_and_names()), arrays, str(path))
    return dit


def load_described(path: Path) -> DiT:
    """The transformer of a file that `save_dit` wrote, in float32.

    Raises:
        CheckpointError: the file is damaged, has no config, or its weights do not fit that config.
    """
    _, metadata = load_arrays(path, under="final_layer.")
    try:
        config = DiTConfig.model_validate_json(metadata["dit_config"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path} does not say what transformer it holds (dit_config): {error}") from None
    return load_dit(path, config)


def load_stage(path: Path, params: Params, stage: int) -> DiT:
    """A stage's transformer with a file's weights, in the arithmetic that the stage is trained in; see `load_dit`.

    Raises:
        NoBfloat16Error: this device has no such arithmetic.
    """
    dtype = device.compute_dtype(params.recipes[stage].train.settings.dtype)
    return load_dit(path, params.dit_config(stage), dtype)


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
