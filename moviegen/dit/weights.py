"""A transformer's weights on disk."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from pydantic import ValidationError

from moviegen import device
from moviegen.config import DiTConfig, Params
from moviegen.device.world import World
from moviegen.dit.layers import Linear
from moviegen.dit.model import DiT
from moviegen.dit.positions import grow_positions, table_lengths
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import Arrays, CheckpointError, check_fits, save_arrays, stored_tensors, unwrapped
from moviegen.runs.weights import assign, finite, load_arrays, to_arrays

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


def load_dit(
    path: Path, config: DiTConfig, dtype: ms.Type = ms.float32, mesh: Mesh | None = None, zero_stage: int = 0
) -> DiT:
    """A transformer of `config` with a file's weights, to be asked only; its position tables are as long as the file's.

    Weights that the arithmetic takes in its own type are held in it and in no other: 59 GB of 30B's in bfloat16.

    Args:
        dtype: of the arithmetic.
        mesh: over whose shard groups the tokens are divided, and over all of whose ranks the weights; None: one rank.
        zero_stage: 0: each rank holds all weights; 3: of matrices its part, of which each product gathers the whole.

    Raises:
        CheckpointError: as `load_weights`, but for the lengths of the tables.
    """
    arrays, mesh = read_weights(path), mesh or Mesh()
    config = config.model_copy(update={"max_size": table_lengths(arrays)})
    dit = DiT(config, sequence_of(mesh, config.num_heads), dtype)
    zero = Zero(dit, zero_stage, World(mesh.rank, mesh.size))
    check_fits(zero.shapes, arrays, str(path))
    held_in = _product_weights(dit)
    for place, (name, weight) in enumerate(zero.weights.items()):
        whole = finite(np.asarray(arrays[name], np.float32), name, str(path))
        if name in held_in:
            weight.set_dtype(dit.dtype)
        weight.set_data(ms.Tensor(zero.part(whole) if place < zero.num_divided else whole, weight.dtype))
    return dit


def _product_weights(dit: DiT) -> set[str]:
    """The weights of which the network uses nothing but casts to its arithmetic's type: the time-step's are float32."""
    return {
        f"{prefix}.weight"
        for prefix, cell in dit.cells_and_names()
        if isinstance(cell, Linear) and not prefix.startswith("timestep_embedder")
    }


def load_described(path: Path, mesh: Mesh | None = None, zero_stage: int = 0) -> DiT:
    """The transformer of a file that `save_dit` wrote, in float32; see `load_dit`.

    Raises:
        CheckpointError: the file is damaged, has no config, or its weights do not fit that config.
    """
    return load_dit(path, described_config(path), mesh=mesh, zero_stage=zero_stage)


def described_config(path: Path) -> DiTConfig:
    """What the transformer of a file that `save_dit` wrote is like.

    Raises:
        CheckpointError: the file is damaged, or has no config.
    """
    _, metadata = load_arrays(path, under="final_layer.")
    try:
        return DiTConfig.model_validate_json(metadata["dit_config"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path} does not say what transformer it holds (dit_config): {error}") from None


def load_stage(path: Path, params: Params, stage: int, mesh: Mesh | None = None) -> DiT:
    """A stage's transformer with a file's weights, in the arithmetic that the stage is trained in; see `load_dit`.

    Args:
        mesh: see `sampling_mesh`; over more than one rank, `sample.zero_stage` says how the weights are divided.

    Raises:
        NoBfloat16Error: this device has no such arithmetic.
    """
    dtype = device.compute_dtype(params.recipes[stage].train.settings.dtype)
    return load_dit(path, params.dit_config(stage), dtype, mesh, params.sample.zero_stage)


def sampling_mesh(params: Params, world: World, config: DiTConfig) -> Mesh:
    """How the ranks of a job divide what is sampled: `sample.shards` at most share the tokens of a clip."""
    return Mesh(world.rank, world.size, params.sample.shards_among(world.size, config.num_heads))


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
