"""The training state that a checkpoint holds, divided over the ranks in memory and in its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np

from moviegen.parallel.zero import GatherOnHost, Zero
from moviegen.runs.arrays import CheckpointError, check_fits
from moviegen.train.checkpoint import UNREADABLE, Checkpoint, Checkpoints, Part
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale

FINE, DAMAGED, OUT_OF_REACH = range(3)  # what a rank finds of its share of a checkpoint


@dataclass(frozen=True)
class TrainingState:
    """Weights, optimizer, average, learning rate and loss scale of one run."""

    zero: Zero
    optimizer: AdamW
    ema: EMA | None
    rate: LearningRate
    scale: LossScale

    def parts(self) -> Iterator[Part]:
        """What this rank writes, copied one after the other; the ranks' together are the whole state, once."""
        for kind, name, weight, held in self._held():
            start, values = self.zero.written(weight, held)
            if values.size:
                yield Part(f"{kind}/{name}", self.zero.shapes[weight], start, values)
        if self.zero.world.is_main:
            yield Part("optimizer/updates", (), 0, self.optimizer.updates.asnumpy().reshape(1).copy())

    def _held(self) -> Iterator[tuple[str, str, str, np.ndarray]]:
        for name, master in self.zero.masters.items():
            yield "weights", name, name, master.asnumpy()
        for name, weight, moment in self.optimizer.moments():
            yield "optimizer", name, weight, moment
        for name, average in self.ema.averages.items() if self.ema else ():
            yield "ema", name, name, average

    def numbers(self) -> dict[str, Any]:
        """What is no array."""
        return {"rate": self.rate.state(), "scale": self.scale.state()}

    def restart(self) -> None:
        """The optimizer as it was before the first update, and an average that starts at the weights."""
        self.optimizer.restart()
        if self.ema:
            self.ema.restart()

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Takes a checkpoint, saved by any number of ranks; one without an average starts it at the weights.

        Each rank reads what it holds, array by array; all ranks must ask together.

        Raises:
            CheckpointError: it is of another network; `source` names it.
        """
        weights, optimizer = checkpoint.files["weights"], checkpoint.files["optimizer"]
        check_fits(self.zero.shapes, weights, source)
        self.zero.set_masters(lambda name: self.zero.held(weights[name]))
        self.optimizer.set_moments(lambda name: self.zero.held(optimizer[name]))
        self.optimizer.updates.set_data(ms.Tensor(np.asarray(optimizer["updates"]), ms.float32))
        if self.ema:
            self.ema.set_arrays(checkpoint.files.get("ema", weights))
        self.rate.restore(checkpoint.state["rate"])
        self.scale.restore(checkpoint.state["scale"])


def newest(checkpoints: Checkpoints) -> Checkpoint | None:
    """The newest whole checkpoint, the same on all ranks, which must ask together: each checks its share of the files.

    Raises:
        CheckpointError: a rank cannot read what rank 0 sees.
    """
    world = checkpoints.world
    if world.size == 1:
        return checkpoints.latest()
    told = GatherOnHost()
    candidates = iter(checkpoints.steps() if world.is_main else ())
    while (step := int(told.whole(np.array([next(candidates, -1)], np.float32))[0])) >= 0:
        found, reason = _checked(checkpoints, step)
        verdicts = told.whole(np.array([found], np.float32))
        if OUT_OF_REACH in verdicts:
            ranks = ", ".join(map(str, np.flatnonzero(verdicts == OUT_OF_REACH)))
            raise CheckpointError(
                f"rank 0 goes on from {checkpoints.path(step)}, and rank {ranks} cannot read it"
                f"{f' ({reason})' if found == OUT_OF_REACH else ''}: all hosts must share the folder"
            )
        if DAMAGED not in verdicts:
            return checkpoints.at(step)
        checkpoints.warn(step, reason or f"rank {np.flatnonzero(verdicts == DAMAGED)[0]} says which file")
    return None


def _checked(checkpoints: Checkpoints, step: int) -> tuple[int, str]:
    """What this rank finds of its share of a checkpoint, and why that cannot be used."""
    try:
        checkpoints.check(step, checkpoints.world)
        return FINE, ""
    except UNREADABLE as error:
        return DAMAGED if checkpoints.is_committed(step) else OUT_OF_REACH, str(error)
