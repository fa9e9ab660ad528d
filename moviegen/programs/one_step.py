"""`python -m moviegen step --config 1B`: what one step of a published size takes on this machine, in memory and time.

Forward, backward and an update of stage 1's transformer on one image's latent, random or with the weights of
`model.pretrained_model_path`. With `--forward`: a forward pass alone, all of it in float16, for sizes whose training
state is larger than the memory. With `--stage N`: an update of that stage's recipe by this rank of its job, on random
clips of the size that needs most memory; `plan --dry-run` has it simulated. With `--phase P`: a step of that phase of
the autoencoder's training, on random clips. Of both the memory is printed, counted and measured, and with `--output
FILE` written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mindspore as ms
import numpy as np

from moviegen import device
from moviegen.config import TAE_PHASES, Bucket, ConfigError, Params, latent_size, weights_file
from moviegen.device.collectives import barrier, join_world
from moviegen.device.precision import check_convolves
from moviegen.device.world import World
from moviegen.dit.model import TokenDiT
from moviegen.dit.values import Drawn, Stored, declared
from moviegen.flow.path import FlowMatchingLoss
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.plan.dit_memory import fullest
from moviegen.plan.memory import Memory
from moviegen.plan.tae_memory import tae_training_memory
from moviegen.runs.files import write_json
from moviegen.runs.machine import memory_growth, peak_memory
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import load_lpips
from moviegen.tae.model import TAE
from moviegen.train.optim import AdamW
from moviegen.train.step import Step

Result = TypeVar("Result")


def timed(what: str, work: Callable[[], Result]) -> Result:
    """Does it, and prints how long it took and the process's highest memory so far."""
    started = time.perf_counter()
    result = work()
    seconds, memory = time.perf_counter() - started, peak_memory() / 2**30
    print(f"{what:<40} {seconds:7.1f} s   peak {memory:5.2f} GiB", flush=True)
    return result


def inputs(params: Params, dtype: type[np.floating]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A random latent of stage 1's image, and random text embeddings of full length."""
    recipe, rng = params.recipes[1], np.random.default_rng(params.seed)
    latent = rng.standard_normal((1, 16, *latent_size(1, *recipe.dataset.size))).astype(dtype)
    shapes = [(1, encoder.max_tokens, encoder.width) for encoder in params.text.encoders.values()]
    return latent, [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def train_once(params: Params) -> None:
    """Forward, backward and an update, and once more when everything is compiled."""
    config, recipe = params.dit_config(1), params.recipes[1]
    dit = declared(config)
    if recipe.model.pretrained_model_path:
        values = Stored(dit, weights_file("model.pretrained_model_path", recipe.model.pretrained_model_path), grow=True)
        zero = timed("load the weights", lambda: Zero(dit, 0, World(), values))
    else:
        zero = timed("build and initialise", lambda: Zero(dit, 0, World(), Drawn(dit, params.seed)))
    optimizer = AdamW(zero.masters, recipe.train.optimizer, zero.shapes)
    step = Step(FlowMatchingLoss(dit), zero, optimizer, 1, recipe.train.clip_norm, has_terms=False)
    latent, texts = inputs(params, np.float32)
    noise = np.random.default_rng(0).standard_normal(latent.shape, np.float32)
    masks = np.ones((1, sum(text.shape[1] for text in texts)), bool)
    batch = [ms.Tensor(array) for array in (latent, noise, np.array([0.5], np.float32), *texts, masks)]
    for moment in ("first step, with compilation", "second step"):
        loss, norm = timed(moment, lambda: step([batch], 1e-4))
        print(f"loss {loss:.4f}, gradient norm {norm:.4f}", flush=True)


def update_once(params: Params, stage: int, output: Path | None) -> None:
    """One update of a stage's recipe: its shards, ZeRO, recomputation and micro-batches, on random clips and texts.

    Raises:
        ConfigError: the job has other workers than the recipe asks for.
    """
    recipe, config = params.recipes[stage], params.dit_config(stage)
    settings, world = recipe.train.settings, join_world()
    if world.size != (asked := params.launch_of(stage).worker_num):
        raise ConfigError(f"stage {stage} asks for {asked} workers and was started with {world.size}: use msrun")
    mesh = Mesh(world.rank, world.size, recipe.train.sequence_parallel.shards)
    sequence, dtype = sequence_of(mesh, config.num_heads), device.compute_dtype(settings.dtype)
    dit = declared(config, sequence, dtype)
    values = Drawn(dit, params.seed)
    zero = timed("build and initialise", lambda: Zero(dit, settings.zero_stage, world, values))
    dit.recompute_blocks(recipe.model.recompute_every_nth_block, keep_attention=recipe.model.not_recompute_fa)
    network, micro_batches = dit.by_tokens(), settings.gradient_accumulation_steps
    moment, gradient = (device.compute_dtype(held) for held in (settings.moment_dtype, settings.gradient_dtype))
    optimizer = AdamW(zero.masters, recipe.train.optimizer, zero.shapes, moment)
    step = Step(
        FlowMatchingLoss(network), zero, optimizer, micro_batches, recipe.train.clip_norm, has_terms=False,
        gradient_dtype=gradient,
    )  # fmt: skip
    clip, memory = fullest(params, stage)
    batch = tuple(map(ms.Tensor, micro_batch(params, stage, clip, network)))
    print(f"clip {clip}, rank {world.rank} of {world.size}", flush=True)
    samples = recipe.dataloader.batch_size.samples(clip)
    found = computed(step, batch, micro_batches, memory) | {"clip": f"{samples} x {clip}", "workers": world.size}
    barrier(world)
    if output and world.is_main:
        write_json(output, found)


def autoencoder_once(params: Params, phase: str, output: Path | None) -> None:
    """One update of a phase of the autoencoder's training, on random clips."""
    stage, weights = getattr(params.tae, TAE_PHASES[phase]), params.tae.loss
    config = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    lpips = None
    if weights.perceptual and weights.lpips_checkpoint:
        lpips = load_lpips(weights_file("tae.loss.lpips_checkpoint", weights.lpips_checkpoint))
    check_convolves(stage.settings.dtype, f"tae.{TAE_PHASES[phase]}.settings.dtype")
    tae = timed("build and initialise", lambda: TAE(config))
    tae.compute_in(device.compute_dtype(stage.settings.dtype))
    tae.recompute_blocks(stage.recompute_every_nth_block)
    loss = TAETrainingLoss(tae, weights, lpips, has_outlier_penalty=phase == "opl-on")
    world, micro_batches = join_world(), stage.settings.gradient_accumulation_steps
    zero = Zero(tae, stage.settings.zero_stage, world)
    optimizer = AdamW(zero.masters, stage.optimizer, zero.shapes)
    step = Step(loss, zero, optimizer, micro_batches, stage.clip_norm, has_terms=True)
    clip, rng = Bucket(stage.frames, *stage.size), np.random.default_rng(params.seed)
    length, *sides = latent_size(*clip)
    latent = (config.latent_channels, length if config.is_temporal else clip.frames, *sides)
    batch = [rng.uniform(-1, 1, (stage.batch_size, 3, *clip)), rng.standard_normal((stage.batch_size, *latent))]
    inputs = [ms.Tensor(array.astype(np.float32)) for array in batch]
    if lpips and weights.perceptual_frames:
        inputs.append(ms.Tensor(np.arange(min(clip.frames, weights.perceptual_frames), dtype=np.int32)))
    found = computed(step, tuple(inputs), micro_batches, tae_training_memory(params, phase, world.size))
    barrier(world)
    if output and world.is_main:
        write_json(output, found | {"clip": f"{stage.batch_size} x {clip}", "workers": world.size})


def computed(step: Step, batch: tuple[ms.Tensor, ...], micro_batches: int, memory: Memory) -> dict[str, int | None]:
    """An update, compiled before it, and the bytes that are counted and measured of it.

    On a card both are of all that it holds; on CPU of what the process grows by, weights and optimizer being there.
    """
    timed("compile", lambda: step.compile(batch))

    def update() -> None:
        loss, *_, norm = step([batch] * micro_batches, 1e-4)
        print(f"loss {loss:.4f}, gradient norm {norm:.4f}", flush=True)

    grown = memory_growth(lambda: timed("an update", update))
    card = device.card_memory()
    found = {"counted_bytes": memory.total if card else memory.total - memory.state, "measured_bytes": card or grown}
    sizes = (f"{size / 2**20:,.0f} MiB" if size else "not told" for size in found.values())
    print("memory of it: counted {}, measured {}".format(*sizes), flush=True)
    return found


def micro_batch(params: Params, stage: int, clip: Bucket, network: TokenDiT) -> list[np.ndarray]:
    """What the loss takes, of a stage's samples of one size: tokens, noise, times, places, texts and their mask."""
    batch, rng = params.recipes[stage].dataloader.batch_size, np.random.default_rng(params.seed)
    samples = batch.samples(clip)
    shape = (samples, network.dit.config.latent_channels, *latent_size(*clip))
    latent, noise = (network.tokens(rng.standard_normal(shape, np.float32)) for _ in range(2))
    texts = [
        rng.standard_normal((samples, encoder.max_tokens, encoder.width), np.float32)
        for encoder in params.text.encoders.values()
    ]
    mask = np.ones((samples, sum(params.text.lengths)), bool)
    return [latent, noise, np.full(samples, 0.5, np.float32), network.places(shape), *texts, mask]


def forward_once(params: Params) -> None:
    """A forward pass in float16, weights and all, operator by operator.

    A compiled graph on CPU keeps float32 copies of every float16 weight (4 layers of the 5B shape: 4.4 GB more than
    the 1.3 GB they take; operator by operator 0.3 GB more).
    """
    ms.set_context(mode=ms.PYNATIVE_MODE)
    dit = declared(params.dit_config(1), dtype=ms.float16)
    rng = np.random.default_rng(params.seed)

    def initialise() -> None:
        for _, parameter in dit.parameters_and_names():
            scale = parameter.shape[-1] ** -0.5 if len(parameter.shape) > 1 else 1.0
            noise = rng.standard_normal(parameter.shape, np.float32) * np.float32(scale)
            parameter.set_dtype(ms.float16)
            parameter.set_data(ms.Tensor(noise.astype(np.float16)))

    timed("build and initialise in float16", initialise)
    latent, texts = inputs(params, np.float16)
    masks = np.ones((1, sum(text.shape[1] for text in texts)), bool)
    arguments = [ms.Tensor(array) for array in (latent, np.array([500], np.float32), *texts, masks)]
    for moment in ("first forward", "second forward"):
        velocity = timed(moment, lambda: dit(*arguments).asnumpy())
    print(f"velocity {velocity.shape}, root mean square {np.sqrt(np.mean(np.square(velocity, dtype=np.float32))):.4f}")


def main(params: Params, options: argparse.Namespace) -> None:
    """`step`."""
    device.start(params.seed, params.launch)
    config, output = params.dit_config(options.stage or 1), Path(options.output) if options.output else None
    if not options.phase:
        print(f"{params.scale}: {config.num_layers} layers, width {config.width}", flush=True)
    if options.stage:
        update_once(params, options.stage, output)
    elif options.phase:
        autoencoder_once(params, options.phase, output)
    else:
        (forward_once if options.forward else train_once)(params)
