"""Checkpoints that no process holds whole: memory and bytes of each rank, seconds that training waits, N ranks into M.

Called as a program it is one rank of a job that makes a training state, or takes what a job before it saved, saves it
in the background, and loads it again: `python -m moviegen.proofs.checkpoints FOLDER LAYERS ZERO_STAGE PARAMS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moviegen import device
from moviegen.config import DiTConfig, Params, Save
from moviegen.device.collectives import barrier, join_world
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.launch.worker import supervised
from moviegen.parallel.zero import Zero
from moviegen.plan.memory import rank_checkpoint
from moviegen.proofs.proof import Proof, within
from moviegen.runs.files import read_json, write_json
from moviegen.runs.machine import memory_growth
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale
from moviegen.train.saving import Saver
from moviegen.train.state import TrainingState, newest

SIZES = (4, 12, 24)  # layers
JOBS = ((1, 0), (2, 3), (4, 0))  # workers and ZeRO stage, each of which loads what the one before saved
MIB = 2**20
SLACK = 24 * MIB  # whatever the size: the array that is on its way, threads, and what the heap does not give back


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """Each at growing sizes; a minute or two."""
    write_json(folder / "params.json", params.model_dump(mode="json"))
    for layers in SIZES:
        config = resized(params, layers)
        (found,) = measured(folder, layers, 1, 0)
        yield from memory_proofs(config, found)
    yield waiting_proof(found)
    for workers, stage in JOBS[1:]:
        yield bytes_proof(resized(params, SIZES[0]), stage, measured(folder, SIZES[0], workers, stage))
    checkpoints = Checkpoints(folder / str(SIZES[0]), Save())
    yield bits_proof([checkpoints.at(step) for step in range(1, 1 + len(JOBS))])


def resized(params: Params, layers: int) -> DiTConfig:
    """The last stage's transformer with so many layers."""
    return params.dit_config(max(params.stages)).model_copy(update={"num_layers": layers})


def memory_proofs(config: DiTConfig, found: dict[str, Any]) -> Iterator[Proof]:
    """What a process grows by while it saves, and while it loads."""
    copy, size = rank_checkpoint(config, 1, has_average=True), f"of {config.num_layers} layers"
    if found["saving"] is None:  # the system does not say
        return
    yield Proof(
        claim="Saving takes a copy of what one rank writes, and no more",
        quantity=f"growth of a process that saves the training state {size}",
        measured=found["saving"] / MIB, predicted=copy / MIB,
        lowest=0.8 * copy / MIB, highest=(copy + SLACK) / MIB, unit="MiB",
    )  # fmt: skip
    yield Proof(
        claim="Loading takes one of weights, moments and average at a time on a CPU, on a card one array",
        quantity=f"growth of a process that loads the training state {size}",
        measured=found["loading"] / MIB, predicted=copy / 4 / MIB,
        lowest=0.0, highest=(copy / 4 + SLACK) / MIB, unit="MiB",
    )  # fmt: skip


def waiting_proof(found: dict[str, Any]) -> Proof:
    """Of the largest state."""
    return Proof(
        claim="Training waits while a checkpoint is copied, not while it is hashed and written",
        quantity=f"seconds of a save of {found['bytes'] / MIB:.0f} MiB for which it waits; all that the save takes is "
        f"{found['seconds']:.2f} s",
        measured=found["copying"], predicted=None, lowest=0.0, highest=found["seconds"] / 2, unit="s",
    )  # fmt: skip


def bytes_proof(config: DiTConfig, stage: int, found: list[dict[str, Any]]) -> Proof:
    """Of the rank that writes most."""
    counted, most = rank_checkpoint(config, len(found), has_average=True), max(one["bytes"] for one in found)
    low, high = within(counted / MIB, 0.02)  # names, and what does not divide by the ranks
    return Proof(
        claim="Each of N ranks writes an N-th of a checkpoint, whatever ZeRO divides",
        quantity=f"the largest of {len(found)} ranks' files at ZeRO stage {stage}",
        measured=most / MIB, predicted=counted / MIB, lowest=low, highest=high, unit="MiB",
    )  # fmt: skip


def bits_proof(saved: list[Checkpoint]) -> Proof:
    """Of checkpoints, each saved by those who loaded the one before."""
    first, *others = map(_content, saved)
    differing = sum(first.get(name) != other.get(name) for other in others for name in first.keys() | other.keys())
    ranks = ", ".join(str(len(checkpoint.state["files"])) for checkpoint in saved)
    return Proof(
        claim="What N ranks saved M ranks load, to the last bit",
        quantity=f"arrays that differ, of {len(first)}, as the state goes from job to job of {ranks} ranks",
        measured=float(differing), predicted=0.0, lowest=0.0, highest=0.0,
    )  # fmt: skip


def _content(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {
        f"{kind}/{name}": np.asarray(array).tobytes()
        for kind, arrays in checkpoint.files.items()
        for name, array in arrays.items()
    }


def measured(folder: Path, layers: int, workers: int, stage: int) -> list[dict[str, Any]]:
    """What each rank of a job finds."""
    place = folder / str(layers)
    job = Job(
        command=("python", "-m", __name__, str(place), str(layers), str(stage), str(folder / "params.json")),
        log_dir=place / f"logs-{workers}",
        worker_num=workers,
        local_worker_num=workers,
    )
    run_job(job)
    return [read_json(place / f"rank-{rank}-of-{workers}.json", "run it again") for rank in range(workers)]


# ---- one rank


def measure(world: World, state: TrainingState, folder: Path) -> dict[str, Any]:
    """Saves a state, of the checkpoint that is there or of random moments, and loads it again."""
    checkpoints = Checkpoints(folder, Save(), world)
    before = newest(checkpoints)
    if before:
        state.restore(before, str(folder))
    else:
        rng, sizes = np.random.default_rng(world.rank), {name: m.size for name, _, m in state.optimizer.moments()}
        state.optimizer.set_moments(lambda name: rng.random(sizes[name], np.float32))
    step, saver, seconds = before.step + 1 if before else 1, Saver(checkpoints), []

    def save() -> None:
        started = time.perf_counter()
        saver.start(step, state.parts(), state.numbers())
        seconds.append(time.perf_counter() - started)
        saver.wait()
        seconds.append(time.perf_counter() - started)

    def restore() -> None:
        state.restore(checkpoints.at(step), str(folder))

    found = {"saving": memory_growth(save), "loading": memory_growth(restore)}
    size = (checkpoints.path(step) / f"rank-{world.rank:04d}.safetensors").stat().st_size
    return found | {"bytes": size, "copying": seconds[0], "seconds": seconds[1]}


def main(folder: Path, layers: int, stage: int, params: Params) -> None:
    """One rank's part of a job."""
    device.start(params.seed)
    world, recipe = join_world(), params.recipes[max(params.stages)]
    zero = Zero(DiT(resized(params, layers)), stage, world)
    optimizer, ema = AdamW(zero.masters, recipe.train.optimizer, zero.shapes), EMA(zero, 0.9)
    state = TrainingState(zero, optimizer, ema, LearningRate(recipe.train.lr_scheduler), LossScale())
    write_json(folder / f"rank-{world.rank}-of-{world.size}.json", measure(world, state, folder))
    barrier(world)


if __name__ == "__main__":
    with supervised():
        of = Params.model_validate(read_json(Path(sys.argv[4]), "run it again"))
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), of)
