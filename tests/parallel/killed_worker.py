"""A worker of test_killed: a small network trained at ZeRO stage 2, with an average, which may kill itself on the way.

Arguments: the run's folder, {"kills": {step: rank}, "pause": seconds before each batch, "steps": how many}. With a
pause the last batch never comes in time: the test kills the job before.
"""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen import device
from moviegen.config import LRScheduler, Optimizer, Save
from moviegen.device.collectives import barrier, join_world
from moviegen.launch.worker import supervised
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import save_arrays
from moviegen.train.ema import EMA
from moviegen.train.loop import Batch, Schedule, Trainer

SAMPLES = 12  # of a batch, of all ranks: 1, 2 and 3 ranks share them


@dataclass(frozen=True)
class Run:
    """What the trainer wants of a run."""

    folder: Path
    name: str = "killed"

    @property
    def metrics_path(self):
        return self.folder / "metrics.jsonl"

    @property
    def identity(self):
        return {"fingerprint": "0123", "seed": 1}


class Curve(nn.Cell):
    """The error of a network of two layers; none of its 15, 5, 10 and 2 weights divide by both 2 and 3."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.first = ms.Parameter(ms.Tensor(rng.standard_normal((3, 5)), ms.float32))
        self.first_bias = ms.Parameter(ms.Tensor(rng.standard_normal(5), ms.float32))
        self.second = ms.Parameter(ms.Tensor(rng.standard_normal((5, 2)), ms.float32))
        self.second_bias = ms.Parameter(ms.Tensor(rng.standard_normal(2), ms.float32))

    def construct(self, x, y):
        hidden = ops.tanh(ops.matmul(x, self.first) + self.first_bias)
        error = ops.matmul(hidden, self.second) + self.second_bias - y
        return (error * error).mean()


def samples(seed, world):
    """This rank's share of a batch."""
    rng, share = np.random.default_rng(seed), SAMPLES // world.size
    arrays = rng.standard_normal((SAMPLES, 3), np.float32), rng.standard_normal((SAMPLES, 2), np.float32)
    return tuple(array[world.rank * share :][:share] for array in arrays)


def main(folder, kills, pause, steps):
    device.start(0)
    world = join_world()
    loss = Curve()
    held_out = tuple(ms.Tensor(array) for array in samples([0, 0], world))

    def batch_at(step, micro):
        """Asked for in a thread, while the step before is computed, validated and saved."""
        mark = folder / f"killed-at-{step}"
        if kills.get(str(step)) == world.rank and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60 if pause and step == steps else pause)
        return Batch(samples([step, micro], world), "image")

    zero = Zero(loss, 2, world)
    trainer = Trainer(
        run=Run(folder),
        zero=zero,
        loss=loss,
        terms=(),
        schedule=Schedule(steps, 1, Save(interval=2, keep=2, ckpt_save_policy="top_k"), micro_batches=2),
        optimizer_config=Optimizer(eps=1e-8, weight_decay=0.1),
        rate_config=LRScheduler(lr=0.3, warmup_steps=3, patience=2, min_lr=1e-6),
        validate=lambda alive: {"loss": float(loss(*held_out))},
        ema=EMA(zero, 0.9),
    )
    trainer.fit(batch_at)
    moments = {name: zero.whole(weight, moment) for name, weight, moment in trainer.optimizer.moments()}
    arrays = {f"weights.{name}": array for name, array in zero.arrays().items()}
    for name, weight in zero.weights.items():  # what this rank computes with is what the ranks hold together
        np.testing.assert_array_equal(weight.asnumpy(), arrays[f"weights.{name}"])
    arrays |= {f"ema.{name}": array for name, array in trainer.ema.arrays().items()}
    arrays |= {f"optimizer.{name}": array for name, array in moments.items()}
    arrays["optimizer.updates"] = trainer.optimizer.updates.asnumpy()
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    state = {"rate": trainer.rate.state(), "scale": trainer.scale.state(), "digest": digest}
    (folder / f"state-{world.rank}.json").write_text(json.dumps(state))
    if world.is_main:
        save_arrays(folder / "end.safetensors", arrays)
    barrier(world)


if __name__ == "__main__":
    with supervised():
        main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
