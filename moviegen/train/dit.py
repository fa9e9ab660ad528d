"""`python -m moviegen train --stage 1|2|3`: one stage of the transformer, in one process or under `msrun`.

Stage 1 sees images; stage 2 images and videos, with the spatial tables grown 2x and a temporal one added; stage 3 the
same at three times the resolution, with the spatial tables grown 3x. Each starts from the one before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen import device, flow, runs
from moviegen.config import ConfigError, Params, weights_file
from moviegen.device.collectives import World, barrier, join_world
from moviegen.dit.model import DiT
from moviegen.dit.weights import EMA_WEIGHTS, WEIGHTS, save_dit
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.train.dit_batches import Batches, ValidationBatches, training_batches, validation_batches
from moviegen.train.ema import EMA
from moviegen.train.loop import Schedule, Trainer
from moviegen.train.resume import start
from moviegen.train.state import gathered

FLOAT16_LOSS_SCALE = 2.0**16  # to start with


def validation(loss: nn.Cell, batches: ValidationBatches) -> Callable[[], Mapping[str, float]]:
    """The mean loss of this rank's samples."""

    def validate() -> Mapping[str, float]:
        sizes, losses = [], []
        for inputs in batches:
            sizes.append(len(inputs[0]))
            losses.append(float(loss(*(ms.Tensor(array) for array in inputs))))
        return {"loss": float(np.average(losses, weights=sizes))}

    return validate


def starting_weights(run: runs.Run, stage: int) -> Path | None:
    """The named checkpoint, or the previous stage's; None where stage 1 starts from nothing."""
    named = run.params.recipes[stage].model.pretrained_model_path
    if named:
        return weights_file("model.pretrained_model_path", named)
    return run.upstream(f"stage{stage - 1}").folder / WEIGHTS if stage > 1 else None


def build(run: runs.Run, stage: int, mesh: Mesh) -> DiT:
    """The stage's transformer on this rank's place in the mesh, with the weights it starts from."""
    recipe, config = run.params.recipes[stage], run.params.dit_config(stage)
    dit = DiT(config, sequence_of(mesh, config.num_heads), device.compute_dtype(recipe.train.settings.dtype))
    if start := starting_weights(run, stage):
        dit.load_weights(start, grow=True)
    return dit


def batches(run: runs.Run, stage: int, mesh: Mesh) -> tuple[Batches, ValidationBatches]:
    """What a rank trains on, and what it validates on; ranks that share tokens share samples."""
    samples = World(mesh.data_rank, mesh.data_size)
    return training_batches(run, stage, samples), validation_batches(run, stage, samples)


def train(run: runs.Run, stage: int, world: World) -> None:
    """Trains one stage; rank 0 leaves `dit.safetensors`, and `dit_ema.safetensors` where an average is kept."""
    recipe = run.params.recipes[stage]
    mesh = Mesh(world.rank, world.size, recipe.train.sequence_parallel.shards)
    dit = build(run, stage, mesh)
    training, held_out = batches(run, stage, mesh)
    loss = flow.FlowMatchingLoss(dit)
    zero = Zero(dit, recipe.train.settings.zero_stage, world)
    # after Zero: what gathers the weights of a block is recomputed with it
    dit.recompute_blocks(recipe.model.recompute_every_nth_block, keep_attention=recipe.model.not_recompute_fa)
    trainer = Trainer(
        run=run,
        zero=zero,
        loss=loss,
        terms=(),
        schedule=Schedule(
            recipe.train.steps,
            recipe.valid.frequency,
            recipe.train.save,
            recipe.train.settings.gradient_accumulation_steps,
            recipe.train.clip_norm,
            recipe.train.profile,
        ),
        optimizer_config=recipe.train.optimizer,
        rate_config=recipe.train.lr_scheduler,
        validate=validation(loss, held_out),
        ema=EMA(zero, recipe.train.ema.decay) if recipe.train.ema else None,
        loss_scale=FLOAT16_LOSS_SCALE if dit.dtype == ms.float16 else 1.0,
        start=(lambda: start(run, stage, world)) if recipe.train.resume else None,
    )
    trainer.fit(training)
    save(run, dit, zero, trainer.ema)


def save(run: runs.Run, dit: DiT, zero: Zero, ema: EMA | None) -> None:
    """Writes the whole weights; all ranks together."""
    files = {WEIGHTS: {name: (name, master) for name, master in zero.masters.items()}}
    if ema:
        files[EMA_WEIGHTS] = ema.parts()
    for name, parts in files.items():
        arrays = gathered(zero, parts)
        if zero.world.is_main:
            save_dit(run.folder / name, dit, arrays)


def check_job(run: runs.Run, world: World) -> None:
    """Refuses other workers than the recipe asks for: their number decides the result, and the run's fingerprint.

    Raises:
        ConfigError: the message says how to start it.
    """
    wanted, size = run.params.launch.worker_num, world.size
    if size == wanted:
        return
    run.write_params()  # the command names this file
    change = f"--launch.worker_num {size} --launch.local_worker_num {size}"
    if any(size % recipe.train.sequence_parallel.shards for recipe in run.params.recipes.values()):
        change += " --train.sequence_parallel.shards 1"
    raise ConfigError(
        f"{run.program.name} asks for launch.worker_num {wanted} and was started with {size}: run "
        f"`{run.command_line()}`, or have the recipe ask for {size} with `{change}`"
    )


def main(params: Params, options: argparse.Namespace) -> None:
    """`train --stage 1|2|3`."""
    device.start(params.seed, params.launch)
    world = join_world()
    run = runs.find(params, f"stage{options.stage}")
    check_job(run, world)
    with runs.record(run) if world.is_main else nullcontext():
        train(run, options.stage, world)
        barrier(world)
    barrier(world)  # the run is complete before a rank leaves: the notebook on its host looks for it
