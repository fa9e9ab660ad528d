"""A worker of test_traffic_counted: updates a small transformer, and leaves the graphs that MindSpore compiled for it.

Arguments: a folder, and cases as in divided.py. Each rank moves its graphs of a case to <folder>/<name>/rank_<rank>.

In a card's form (MOVIEGEN_FORM=card) it only compiles. MindSpore's passes over the graph run as they do for a card; the
CPU then has no kernel for reduce-scatter or for FlashAttention in bfloat16, and compilation ends with an error. The
graph has been written by then.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import mindspore as ms

from moviegen import device
from moviegen.device import attention, collectives, kernels, precision, updates
from moviegen.device.collectives import barrier, join_world
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow.path import FlowMatchingLoss
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.train.optim import AdamW
from moviegen.train.step import Step
from tests.parallel.runtime_worker import CLIP_NORM, CONFIG, OPTIMIZER, SAMPLES, batch, start

IS_CARD = os.environ.get("MOVIEGEN_FORM") == "card"


def as_on_a_card():
    """Cells take a card's form when they are made."""
    for module in (device, attention, collectives, kernels, precision, updates):
        module.target = lambda: "Ascend"


def update_of(case, world):
    """A step, and a micro-batch for it."""
    mesh = Mesh(world.rank, world.size, case["shards"])
    dit = DiT(CONFIG, sequence_of(mesh, CONFIG.num_heads), ms.bfloat16 if IS_CARD else ms.float32)
    start(dit)
    zero = Zero(dit, case["zero"], world)
    dit.recompute_blocks(case["recompute"], case["keep_attention"])
    optimizer = AdamW(zero.masters, OPTIMIZER, zero.shapes)
    step = Step(FlowMatchingLoss(dit), zero, optimizer, case["micro_batches"], CLIP_NORM, has_terms=False)
    share = SAMPLES // mesh.data_size  # as many on each rank: else their graphs are not the same, nor the calls' order
    return step, batch(case["media"][0], 0, World(mesh.data_rank, SAMPLES // share))


def compile_for_a_card(step, inputs):
    """The graphs of an update, as far as a CPU can."""
    rate = ms.Tensor(1.0, ms.float32)
    graphs = [(step.whole, (rate, *inputs))] if step.whole else [(step.backward, inputs), (step.finish, (rate,))]
    for cell, given in graphs:
        try:
            cell.compile(*given)
        except (RuntimeError, TypeError) as error:
            print(f"no kernel: {error}")


def main(folder, cases):
    os.chdir(folder)  # where MindSpore explains errors
    device.start(0)
    world = join_world()
    if IS_CARD:
        as_on_a_card()
    for case in cases:
        step, inputs = update_of(case, world)
        if IS_CARD:
            compile_for_a_card(step, inputs)
        else:
            step([inputs] * case["micro_batches"], 0.01)
        (folder / case["name"]).mkdir(exist_ok=True)
        place = f"rank_{world.rank}"
        shutil.move(folder / "graphs" / place, folder / case["name"] / place)
    if not IS_CARD:
        barrier(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
