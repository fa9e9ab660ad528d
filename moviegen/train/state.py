"""The training state that a checkpoint holds, divided over the ranks in memory and whole on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np

from moviegen.device.world import World
from moviegen.parallel.zero import GatherOnHost, Zero
from moviegen.runs.arrays import Arrays, check_fits
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale


def gathered(zero: Zero, parts: Mapping[str, tuple[str, ms.Tensor]]) -> dict[str, np.ndarray]:
    """Whole arrays on the rank that writes them, nothing on the others; all ranks must ask together.

    Args:
        parts: name -> name of the weight, what this rank holds of it or of anything shaped like it.
    """
    wholes = ((name, zero.whole(weight, part)) for name, (weight, part) in parts.items())
    return {name: array for name, array in wholes if zero.world.is_main}


@dataclass(frozen=True)
class TrainingState:
    """Weights, optimizer, average, learning rate and loss scale of one run."""

    zero: Zero
    optimizer: AdamW
    ema: EMA | None
    rate: LearningRate
    scale: LossScale

    def files(self) -> dict[str, Arrays]:
        """Whole arrays by file, on the rank that writes them; all ranks must ask together."""
        masters = {name: (name, master) for name, master in self.zero.masters.items()}
        files = {"weights": gathered(self.zero, masters), "optimizer": gathered(self.zero, self.optimizer.moments())}
        files["optimizer"]["updates"] = self.optimizer.updates.asnumpy()
        return files | ({"ema": gathered(self.zero, self.ema.parts())} if self.ema else {})

    def numbers(self) -> dict[str, Any]:
        """What is no array."""
        return {"rate": self.rate.state(), "scale": self.scale.state()}

    def restart(self) -> None:
        """The optimizer as it was before the first update, and an average that starts at the weights."""
        for moment in (*self.optimizer.moment1, *self.optimizer.moment2):
            moment.set_data(ms.Tensor(np.zeros(moment.shape, np.float32)))
        self.optimizer.updates.set_data(ms.Tensor(0, ms.float32))
        if self.ema:
            self.ema.restart()

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Takes a checkpoint, saved by any number of ranks; one without an average starts it at the weights.

        Raises:
            CheckpointError: it is of another network; `source` names it.
        """
        weights, optimizer = checkpoint.files["weights"], checkpoint.files["optimizer"]
        check_fits(self.zero.shapes, weights, source)
        self.zero.set_arrays(weights)
        self.optimizer.set_moments(
            lambda name: self.zero.part(np.asarray(optimizer[name])) if self.zero.stage else np.asarray(optimizer[name])
        )
        self.optimizer.updates.set_data(ms.Tensor(np.asarray(optimizer["updates"]), ms.float32))
        if self.ema:
            self.ema.set_arrays(checkpoint.files.get("ema", weights))
        self.rate.restore(checkpoint.state["rate"])
        self.scale.restore(checkpoint.state["scale"])


def newest(checkpoints: Checkpoints, world: World) -> Checkpoint | None:
    """The newest whole checkpoint, the same on all ranks, which must ask together: rank 0 checks its bytes for all.

    Raises:
        CheckpointError: a rank cannot read what rank 0 goes on from.
    """
    latest = checkpoints.latest() if world.is_main else None
    if world.size == 1:
        return latest
    step = GatherOnHost().whole(np.array([latest.step if latest else -1], np.float32))[0]
    return None if step < 0 else latest or checkpoints.at(int(step))
