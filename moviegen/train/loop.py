"""The training loop: batches, updates, validation, checkpoints, metrics. It knows no model and no dataset."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn
from tqdm import tqdm

from moviegen.config import LRScheduler, Optimizer, Save
from moviegen.device.collectives import Average, World
from moviegen.runs import MetricsWriter, Run
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.optim import AdamW, LearningRate
from moviegen.train.step import Accumulators, Apply, Backward
from moviegen.weights import assign, to_arrays


class DivergedError(ArithmeticError):
    """The loss is not a finite number."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Args:
        inputs: what the loss Cell takes.
        media: `image` or `video`: each has a graph of its own.
        names: the samples, for messages.
    """

    inputs: tuple[np.ndarray, ...]
    media: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How long and how often; the rest is the optimizer's."""

    steps: int
    validation_interval: int
    save: Save
    micro_batches: int = 1
    clip_norm: float = 1.0


@dataclass
class Trainer:
    """Trains `parameters` to lower what `loss` returns first.

    Args:
        terms: names of what `loss` returns after the total.
        validate: this rank's share of the validation metrics; `loss` among them steers the learning rate.
    """

    run: Run
    world: World
    loss: nn.Cell
    terms: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    schedule: Schedule
    optimizer_config: Optimizer
    rate_config: LRScheduler
    validate: Callable[[], Mapping[str, float]]
    _seen: set[tuple[int, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.optimizer = AdamW(self.parameters, self.optimizer_config)
        accumulators = Accumulators(self.optimizer.weights)
        self.backward = Backward(self.loss, self.optimizer.weights, accumulators, has_terms=bool(self.terms))
        self.apply = Apply(
            self.optimizer, accumulators, self.schedule.micro_batches, self.schedule.clip_norm, self.world.size
        )
        self.rate = LearningRate(self.rate_config)
        self.checkpoints = Checkpoints(self.run.folder / "checkpoints", self.schedule.save.keep)
        self.metrics = MetricsWriter(self.run.metrics_path)
        self.average = Average(self.world.size)

    def fit(self, batch_at: Callable[[int, int], Batch]) -> None:
        """Runs the steps that are left.

        Args:
            batch_at: (step, micro-batch) -> batch. It must follow from its arguments alone: a resumed run asks again.

        Raises:
            DivergedError: a loss is not finite; checkpoints from before stay.
        """
        first = self._resume()
        if first == 0:
            self._validate(0)
        progress = tqdm(total=self.schedule.steps, initial=first, disable=None, file=sys.stderr, desc=self.run.name)
        for step, batches in self._prefetched(batch_at, first + 1):
            loss = self._update(step, batches)
            progress.update()
            progress.set_postfix(loss=f"{loss:.4f}")
            if step % self.schedule.validation_interval == 0 or step == self.schedule.steps:
                self._validate(step)
            if step % self.schedule.save.interval == 0 or step == self.schedule.steps:
                self._save(step)
        progress.close()

    def _prefetched(self, batch_at: Callable[[int, int], Batch], first: int) -> Iterator[tuple[int, list[Batch]]]:
        """Makes the next step's batches while this one is computed."""

        def make(step: int) -> list[Batch]:
            return [batch_at(step, micro) for micro in range(self.schedule.micro_batches)]

        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(make, first) if first <= self.schedule.steps else None
            for step in range(first, self.schedule.steps + 1):
                batches = pending.result()
                pending = pool.submit(make, step + 1) if step < self.schedule.steps else None
                yield step, batches

    def _update(self, step: int, batches: list[Batch]) -> float:
        started = time.perf_counter()
        totals = np.zeros(1 + len(self.terms))
        for batch in batches:
            values = self.backward(*(ms.Tensor(array) for array in batch.inputs))
            values = values if isinstance(values, tuple) else (values,)
            totals += np.array([float(self.average(value)) for value in values]) / len(batches)
        self._check_finite("loss", totals, step, batches)
        lr = self.rate.at(step)
        norm = float(self.apply(ms.Tensor(lr, ms.float32)))
        self._check_finite("gradient norm", np.array([norm]), step, batches)
        seconds = time.perf_counter() - started
        self._record_step(step, batches, totals, lr, norm, seconds)
        return float(totals[0])

    def _check_finite(self, what: str, values: np.ndarray, step: int, batches: list[Batch]) -> None:
        if not np.isfinite(values).all():
            names = ", ".join(name for batch in batches for name in batch.names)
            raise DivergedError(
                f"{what} {values[0]} at step {step} of {self.run.name} (this rank's samples: {names}); the last "
                f"checkpoint is from before: lower the learning rate, or take the samples out"
            )

    def _record_step(
        self, step: int, batches: list[Batch], totals: np.ndarray, lr: float, norm: float, seconds: float
    ) -> None:
        if not self.world.is_main:
            return
        shapes = {batch.inputs[0].shape for batch in batches}
        if not shapes <= self._seen:
            self._seen |= shapes
            self.metrics.write(kind="compile", step=step, media=batches[0].media, seconds=round(seconds, 3))
        values = dict(zip(("loss", *self.terms), map(float, totals), strict=True))
        self.metrics.write(
            kind="train", step=step, steps=self.schedule.steps, **values, lr=lr, grad_norm=norm,
            seconds=round(seconds, 4), media=batches[0].media, samples=sum(len(b.inputs[0]) for b in batches),
        )  # fmt: skip

    def _validate(self, step: int) -> None:
        values = {
            name: float(self.average(ms.Tensor(value, ms.float32))) for name, value in sorted(self.validate().items())
        }
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"validation loss {values['loss']} at step {step} of {self.run.name}")
        if step:
            self.rate.observe(values["loss"])
        if self.world.is_main:
            self.metrics.write(kind="validation", step=step, steps=self.schedule.steps, **values)

    def _save(self, step: int) -> None:
        if self.world.is_main:
            state = {"rate": self.rate.state()}
            arrays = to_arrays(self.parameters), to_arrays(self.optimizer.state())
            self.checkpoints.save(Checkpoint(step, *arrays, state))

    def _resume(self) -> int:
        checkpoint = self.checkpoints.latest()
        if self.world.is_main:
            self.metrics.drop_after(checkpoint.step if checkpoint else -1)
        if checkpoint is None:
            return 0
        source = f"{self.run.name}, step {checkpoint.step}"
        assign(self.parameters, checkpoint.weights, source)
        assign(self.optimizer.state(), checkpoint.optimizer, source)
        self.rate.restore(checkpoint.state["rate"])
        return checkpoint.step
