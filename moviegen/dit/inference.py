"""A trained transformer to sample with, on a rank's place in a job: whole, or divided (paper 3.4.2)."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from pydantic import ValidationError

from moviegen import device
from moviegen.config import DiTConfig, Params
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.dit.positions import table_lengths
from moviegen.dit.values import Stored, declared
from moviegen.dit.weights import read_weights
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import CheckpointError
from moviegen.runs.weights import load_arrays


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
    mesh = mesh or Mesh()
    config = config.model_copy(update={"max_size": table_lengths(read_weights(path))})
    dit = declared(config, sequence_of(mesh, config.num_heads), dtype)
    Zero(dit, zero_stage, World(mesh.rank, mesh.size), Stored(dit, path), is_trained=False)
    return dit


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
