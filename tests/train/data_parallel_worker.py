"""A worker of test_data_parallel: steps of a linear model on its share of each batch, and what ranks go on from."""

import shutil
import sys
from pathlib import Path

import numpy as np

from moviegen import device
from moviegen.config import LRScheduler, Optimizer, Save
from moviegen.device.collectives import barrier, join_world
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.runs.weights import to_arrays
from moviegen.train.checkpoint import Checkpoints
from moviegen.train.loop import Batch, Schedule, Trainer
from moviegen.train.state import newest
from tests.train.conftest import Regression, regression_batch


class Run:
    """What the trainer wants of a run."""

    def __init__(self, folder):
        self.folder, self.metrics_path, self.name = folder, folder / "metrics.jsonl", "parallel"
        self.identity = {}


def trained(folder, world, steps, start=None):
    """The weights after so many steps."""
    net, share = Regression(), 4 // world.size

    def batch_at(step, micro):
        return Batch(tuple(a[world.rank * share :][:share] for a in regression_batch([step, micro])), "image")

    parameters = dict(net.parameters_and_names())
    schedule = Schedule(steps, validation_interval=9, save=Save(interval=9, keep=1), micro_batches=2)
    Trainer(
        run=Run(folder), zero=Zero(net, 0, world), loss=net, terms=("other",), schedule=schedule,
        optimizer_config=Optimizer(eps=1e-8), rate_config=LRScheduler(lr=0.1, warmup_steps=0),
        validate=lambda alive: {"loss": float(np.float32(world.rank))}, start=start,
    ).fit(batch_at)  # fmt: skip
    return to_arrays(parameters)


def find(folder, world, case, name):
    """Leaves what a rank goes on from in a folder of checkpoints, or why it cannot."""
    try:
        checkpoint = newest(Checkpoints(folder / name, Save(), world))
        found = f"step {checkpoint.step}" if checkpoint else "nothing"
    except CheckpointError as error:
        found = str(error)
    (folder / f"{case}-{world.rank}.txt").write_text(found)


def main(folder):
    device.start(0)
    world = join_world()
    save_arrays(folder / f"{world.size}-{world.rank}.safetensors", trained(folder, world, 3))
    find(folder, world, "shared", "checkpoints")
    if world.is_main:
        shutil.copytree(folder / "checkpoints", folder / "0" / "checkpoints")
    barrier(world)
    find(folder, world, "apart", f"{world.rank}/checkpoints")  # as on two hosts that do not share their disk
    find(folder, world, "none", "absent")
    barrier(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
