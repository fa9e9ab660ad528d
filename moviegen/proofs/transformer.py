"""What of the transformer's large jobs a CPU can measure: a rank's memory at its start, and state held in bfloat16.

    python -m moviegen.proofs.transformer build|train '{...}'

is a proof's own child, of which rank 0 writes what it measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import device
from moviegen.config import DiTConfig, Optimizer, Params, latent_size
from moviegen.device.collectives import barrier, join_world
from moviegen.device.world import World
from moviegen.dit.values import Drawn, declared
from moviegen.flow.path import FlowMatchingLoss
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.parallel.zero import Zero
from moviegen.plan.memory import start_bytes
from moviegen.proofs.proof import Proof, within
from moviegen.runs.files import read_json, write_json
from moviegen.runs.machine import memory_growth
from moviegen.train.optim import AdamW
from moviegen.train.step import Step

WIDTHS, RANKS, LAYERS = (512, 1024), (1, 2, 4), 8
STARTED_WITHIN, SLACK = 0.15, 30.0  # over the count, and MiB of what MindSpore takes besides for its first tensors
UPDATES, LAST = 60, 10  # of a short run, and over how many of them its last loss is a mean
LOSS_WITHIN = 0.005
HELD = {"moment_dtype": "bfloat16", "gradient_dtype": "bfloat16"}
CLIP, SAMPLES, TEXT, RATE = (1, 64, 64), 4, 8, 1e-3


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """Measures in processes of their own, which leave their files in `folder`."""
    config = params.dit_config(1)
    for width in WIDTHS:
        grown = {ranks: _child(folder, "build", ranks, size=of_width(config, width).model_dump()) for ranks in RANKS}
        yield from (started(of_width(config, width), ranks, grown[ranks]["bytes"]) for ranks in RANKS)
    losses = {
        name: _child(folder, "train", 1, size=config.model_dump(), held=held)["losses"]
        for name, held in [("float32", {}), *((name, {name: dtype}) for name, dtype in HELD.items())]
    }
    for name in HELD:
        yield held(name, losses[name], losses["float32"])


def of_width(config: DiTConfig, width: int) -> DiTConfig:
    """A transformer of LAYERS blocks, so wide."""
    return config.model_copy(
        update={"width": width, "ffn_width": 8 * width // 3, "num_heads": width // 64, "num_layers": LAYERS}
    )


def started(config: DiTConfig, ranks: int, grown: int) -> Proof:
    """What a rank's process grew by while it built its part."""
    counted = start_bytes(config, ranks, 3 if ranks > 1 else 0) / 2**20
    return Proof(
        claim="A rank of ZeRO 3 builds its part of the transformer without the whole.",
        quantity=f"growth of a process that builds rank 0 of {ranks}, width {config.width}, {config.num_layers} blocks",
        measured=grown / 2**20,
        predicted=counted,
        lowest=0.0,
        highest=counted * (1 + STARTED_WITHIN) + SLACK,
        unit="MiB",
    )


def held(name: str, losses: list[float], plain: list[float]) -> Proof:
    """The last loss of a short run that holds something in bfloat16, of that of one that does not."""
    lowest, highest = within(1.0, LOSS_WITHIN)
    return Proof(
        claim=f"train.settings.{name} bfloat16 leaves the loss what it is.",
        quantity=f"mean loss of the last {LAST} of {len(losses)} updates, of that with float32",
        measured=float(np.mean(losses[-LAST:]) / np.mean(plain[-LAST:])),
        predicted=1.0,
        lowest=lowest,
        highest=highest,
    )


def build(size: DiTConfig, world: World) -> dict[str, Any]:
    """Bytes that this process grows by while its rank of ZeRO 3 is built."""
    return {"bytes": memory_growth(lambda: _KEPT.append(Zero(dit := declared(size), 3, world, Drawn(dit, 0))))}


def train(size: DiTConfig, world: World, held: dict[str, str]) -> dict[str, Any]:
    """Losses of a short run on random latents that are always the same."""
    dit = declared(size)
    zero = Zero(dit, 0, world, Drawn(dit, 0))
    moment, gradient = (device.compute_dtype(held.get(name, "float32")) for name in HELD)
    network, rng = dit.by_tokens(), np.random.default_rng(0)
    optimizer = AdamW(zero.masters, Optimizer(), zero.shapes, moment)
    step = Step(FlowMatchingLoss(network), zero, optimizer, 1, 1.0, has_terms=False, gradient_dtype=gradient)
    shape = (SAMPLES, size.latent_channels, *latent_size(*CLIP))
    latents = 0.5 * rng.standard_normal(shape, np.float32)
    texts = [rng.standard_normal((SAMPLES, TEXT, width), np.float32) for width in size.embedding_widths]
    losses = []
    for _ in range(UPDATES):
        noise, times = rng.standard_normal(shape, np.float32), rng.uniform(0.1, 0.9, SAMPLES).astype(np.float32)
        arrays = [network.tokens(latents), network.tokens(noise), times, network.places(shape), *texts]
        loss, _ = step([[ms.Tensor(array) for array in arrays]], RATE)
        losses.append(float(loss))
    return {"losses": losses}


def _child(folder: Path, kind: str, ranks: int, **case: Any) -> dict[str, Any]:
    name = f"{kind}-{len(list(folder.glob(f'{kind}-*.json')))}"
    output = folder / f"{name}.json"
    command = ("python", "-m", "moviegen.proofs.transformer", kind, json.dumps(case), str(output))
    run_job(Job(command=command, log_dir=folder / f"{name}-logs", worker_num=ranks, local_worker_num=ranks))
    return read_json(output, "run it again")


def main(kind: str, case: str, output: str) -> None:
    """A child."""
    device.start(0)
    world, described = join_world(), json.loads(case)
    size = DiTConfig.model_validate(described.pop("size"))
    found = build(size, world) if kind == "build" else train(size, world, **described)
    barrier(world)
    if world.is_main:
        write_json(Path(output), found)


_KEPT: list[Zero] = []  # what is forgotten is not held


if __name__ == "__main__":
    main(*sys.argv[1:])
