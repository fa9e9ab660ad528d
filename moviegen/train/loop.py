"""The training loop: batches, updates, validation, checkpoints, metrics. It knows no model and no dataset."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from moviegen.config import LRScheduler, Optimizer, Profile, Save
from moviegen.device.collectives import Average
from moviegen.device.profiler import StepTrace
from moviegen.machine import peak_memory
from moviegen.parallel.zero import Zero
from moviegen.runs import MetricsWriter, Run
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale
from moviegen.train.step import Apply, Backward, Gradients
from moviegen.weights import check_fits


class DivergedError(ArithmeticError):
    """The loss is not a finite number."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Args:
        inputs: what the loss Cell takes.
        media: `image` or `video`: each has a graph of its own.
        names: the samples, for messages.
        tokens: how many the network works on, for the speed that is logged; 0 where it has none.
    """

    inputs: tuple[np.ndarray, ...]
    media: str
    names: tuple[str, ...] = ()
    tokens: int = 0


@dataclass(frozen=True)
class Schedule:
    """How long and how often; the rest is the optimizer's."""

    steps: int
    validation_interval: int
    save: Save
    micro_batches: int = 1
    clip_norm: float = 1.0
    profile: Profile | None = None


@dataclass
class Trainer:
    """Trains the weights of `zero` to lower what `loss` returns first.

    Args:
        terms: names of what `loss` returns after the total.
        validate: this rank's share of the validation metrics; `loss` among them steers the learning rate.
        ema: updated once an update.
        loss_scale: of the first step; float16 needs one, other arithmetic works with 1, which never changes.
    """

    run: Run
    zero: Zero
    loss: nn.Cell
    terms: tuple[str, ...]
    schedule: Schedule
    optimizer_config: Optimizer
    rate_config: LRScheduler
    validate: Callable[[], Mapping[str, float]]
    ema: EMA | None = None
    loss_scale: float = 1.0
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _validation_loss: float | None = None

    def __post_init__(self) -> None:
        self.world = self.zero.world
        self.optimizer = AdamW(self.zero.masters, self.optimizer_config, self.zero.shapes)
        gradients = Gradients(self.zero)
        self.backward = Backward(self.loss, self.zero, gradients, has_terms=bool(self.terms))
        self.apply = Apply(self.optimizer, self.zero, gradients, self.schedule.micro_batches, self.schedule.clip_norm)
        self.rate, self.scale = LearningRate(self.rate_config), LossScale(self.loss_scale)
        self.checkpoints = Checkpoints(self.run.folder / "checkpoints", self.schedule.save)
        self.metrics = MetricsWriter(self.run.metrics_path) if self.world.is_main else None
        self.average = Average(self.world.size)
        self.trace = self._trace(self.schedule.profile)

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
        for step, batches, waited in self._prefetched(batch_at, first + 1):
            with self.trace.step(step) if self.trace else nullcontext():
                loss = self._update(step, batches, waited)
            progress.update()
            progress.set_postfix(loss=f"{loss:.4f}")
            if step % self.schedule.validation_interval == 0 or step == self.schedule.steps:
                self._validate(step)
            if step % self.schedule.save.interval == 0 or step == self.schedule.steps:
                self._save(step)
        progress.close()

    def _trace(self, profile: Profile | None) -> StepTrace | None:
        if profile is None:
            return None
        last = min(profile.first + profile.steps - 1, self.schedule.steps)
        return StepTrace(self.run.folder / "profile", profile.first, last, self.world.rank)

    def _prefetched(
        self, batch_at: Callable[[int, int], Batch], first: int
    ) -> Iterator[tuple[int, list[Batch], float]]:
        """Makes the next step's batches while this one is computed; (step, batches, seconds waited for them)."""

        def make(step: int) -> list[Batch]:
            return [batch_at(step, micro) for micro in range(self.schedule.micro_batches)]

        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(make, first) if first <= self.schedule.steps else None
            for step in range(first, self.schedule.steps + 1):
                asked = time.perf_counter()
                batches = pending.result()
                pending = pool.submit(make, step + 1) if step < self.schedule.steps else None
                yield step, batches, time.perf_counter() - asked

    def _update(self, step: int, batches: list[Batch], waited: float) -> float:
        started = time.perf_counter()
        self.backward.scale.set_data(ms.Tensor(self.scale.value, ms.float32))
        totals = np.zeros(1 + len(self.terms))
        for batch in batches:
            values = self.backward(*(ms.Tensor(array) for array in batch.inputs))
            totals += np.array([float(self.average(value)) for value in values]) / len(batches)
        self._check_finite("loss", totals, step, batches)
        lr = self.rate.at(step)
        norm = self.apply(lr, self.scale.value)
        if not self.scale.observe(math.isfinite(norm)):
            self._check_finite("gradient norm", np.array([norm]), step, batches)
        elif self.ema and math.isfinite(norm):
            self.ema.update()
        self._record_step(step, batches, totals, lr, norm, time.perf_counter() - started, waited)
        return float(totals[0])

    def _check_finite(self, what: str, values: np.ndarray, step: int, batches: list[Batch]) -> None:
        if not np.isfinite(values).all():
            names = ", ".join(name for batch in batches for name in batch.names)
            raise DivergedError(
                f"{what} {values[0]} at step {step} of {self.run.name} (this rank's samples: {names}); the last "
                f"checkpoint is from before: lower the learning rate, or take the samples out"
            )

    def _record_step(
        self, step: int, batches: list[Batch], totals: np.ndarray, lr: float, norm: float, seconds: float, waited: float
    ) -> None:
        if self.metrics is None:
            return
        shapes = {batch.inputs[0].shape for batch in batches}
        if not shapes <= self._seen:
            new = [list(shape) for shape in sorted(shapes - self._seen)]
            self._seen |= shapes
            self.metrics.write(kind="compile", step=step, media=batches[0].media, shapes=new, seconds=round(seconds, 3))
        values = dict(zip(("loss", *self.terms), map(float, totals), strict=True))
        tokens = sum(batch.tokens for batch in batches) * self.world.size
        self.metrics.write(
            kind="train", step=step, steps=self.schedule.steps, **values, lr=lr,
            grad_norm=norm if math.isfinite(norm) else None, seconds=round(seconds, 4), data_wait=round(waited, 4),
            media=batches[0].media, samples=sum(len(b.inputs[0]) for b in batches),
            tokens_per_second=round(tokens / seconds, 1), memory_bytes=peak_memory(),
            **({"loss_scale": self.scale.value} if self.loss_scale != 1 else {}),
        )  # fmt: skip

    def _validate(self, step: int) -> None:
        values = {
            name: float(self.average(ms.Tensor(value, ms.float32))) for name, value in sorted(self.validate().items())
        }
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"validation loss {values['loss']} at step {step} of {self.run.name}")
        if step:
            self.rate.observe(values["loss"])
        self._validation_loss = values["loss"]
        if self.metrics:
            self.metrics.write(kind="validation", step=step, steps=self.schedule.steps, **values)

    def _save(self, step: int) -> None:
        moments = {name: self.zero.whole(weight, moment) for name, (weight, moment) in self.optimizer.moments().items()}
        files = {"weights": self.zero.arrays(), "optimizer": moments | {"updates": self.optimizer.updates.asnumpy()}}
        if self.ema:
            files["ema"] = self.ema.arrays()
        if self.world.is_main:
            state = {"rate": self.rate.state(), "scale": self.scale.state(), "validation_loss": self._validation_loss}
            self.checkpoints.save(Checkpoint(step, files, state))

    def _resume(self) -> int:
        checkpoint = self.checkpoints.latest()
        if self.metrics:
            self.metrics.drop_after(checkpoint.step if checkpoint else -1)
            self.metrics.write(kind="state", step=0, **self.apply.bytes_held())
        if checkpoint is None:
            return 0
        source = f"{self.run.name}, step {checkpoint.step}"
        check_fits(self.zero.shapes, checkpoint.files["weights"], source)
        self.zero.set_arrays(checkpoint.files["weights"])
        for name, (_, moment) in self.optimizer.moments().items():
            whole = checkpoint.files["optimizer"][name]
            moment.set_data(ms.Tensor(self.zero.part(whole) if self.zero.stage else whole))
        self.optimizer.updates.set_data(ms.Tensor(checkpoint.files["optimizer"]["updates"], ms.float32))
        if self.ema:
            self.ema.set_arrays(checkpoint.files["ema"])
        self.rate.restore(checkpoint.state["rate"])
        self.scale.restore(checkpoint.state["scale"])
        self._validation_loss = checkpoint.state["validation_loss"]
        return checkpoint.step
