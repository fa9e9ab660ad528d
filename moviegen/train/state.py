"""The training state that a checkpoint holds, divided over the ranks in memory and whole on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from moviegen.device.collectives import World
from moviegen.parallel.zero import GatherOnHost, Zero
from moviegen.train.checkpoint import Checkpoint
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale
from moviegen.weights import Arrays, CheckpointError, check_fits


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

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Takes a checkpoint, saved by any number of ranks; one without an average starts it at the weights.

        Raises:
            CheckpointError: it is of another network; `source` names it.
        """
        weights, optimizer = checkpoint.files["weights"], checkpoint.files["optimizer"]
        check_fits(self.zero.shapes, weights, source)
        self.zero.set_arrays(weights)
        for name, (_, moment) in self.optimizer.moments().items():
            moment.set_data(ms.Tensor(self.zero.part(optimizer[name]) if self.zero.stage else optimizer[name]))
        self.optimizer.updates.set_data(ms.Tensor(optimizer["updates"], ms.float32))
        if self.ema:
            self.ema.set_arrays(checkpoint.files.get("ema", weights))
        self.rate.restore(checkpoint.state["rate"])
        self.scale.restore(checkpoint.state["scale"])


def check_agreed(world: World, step: int, folder: Path) -> None:
    """Refuses to go on from different checkpoints: the ranks' weights would drift apart unseen.

    Raises:
        CheckpointError: another rank has another step; all ranks must ask together.
    """
    if world.size == 1:
        return
    steps = GatherOnHost()(ms.Tensor([step], ms.float32)).asnumpy().astype(int).tolist()
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"the ranks would go on from steps {steps}: not all could read the newest checkpoint in {folder}; start "
            f"again, or take that checkpoint away"
        )
