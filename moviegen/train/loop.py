"""The training loop: batches, updates, validation, checkpoints, metrics. It knows no model and no dataset."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from moviegen.config import LRScheduler, Optimizer, Profile, Save
from moviegen.device import card_memory
from moviegen.device.collectives import Average
from moviegen.device.profiler import StepTrace
from moviegen.parallel.zero import Zero
from moviegen.runs import MetricsWriter, Run
from moviegen.runs.busy import while_busy
from moviegen.runs.machine import peak_memory
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale
from moviegen.train.saving import Saver
from moviegen.train.state import TrainingState, newest
from moviegen.train.step import Step


class DivergedError(ArithmeticError):
    """The loss is not a finite number."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Args:
        inputs: what the loss Cell takes.
        media: `image` or `video`: each has a graph of its own. A step whose micro-batches differ is logged as `mixed`.
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
        terms: names of what `loss` returns after the total; what has none is not logged.
        validate: this rank's share of the validation metrics; `loss` among them steers the learning rate. It calls what
            it is given after each batch, so that whoever watches the job sees that it goes on.
        sample: keeps samples of the weights after an update, which has this number; all ranks call it at each
            validation.
        ema: updated once an update.
        moment_dtype, gradient_dtype: in which the first moment and gradients are held, see `AdamW` and `Step`.
        loss_scale: of the first step; float16 needs one, other arithmetic works with 1, which never changes.
        start: the checkpoint of another run that a run without its own starts from; all ranks ask together.
    """

    run: Run
    zero: Zero
    loss: nn.Cell
    terms: tuple[str, ...]
    schedule: Schedule
    optimizer_config: Optimizer
    rate_config: LRScheduler
    validate: Callable[[Callable[..., None]], Mapping[str, float]]
    sample: Callable[[int], None] | None = None
    ema: EMA | None = None
    moment_dtype: ms.Type = ms.float32
    gradient_dtype: ms.Type = ms.float32
    loss_scale: float = 1.0
    start: Callable[[], Checkpoint] | None = None
    _seen: set[tuple[int, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.world = self.zero.world
        self.optimizer = AdamW(self.zero.masters, self.optimizer_config, self.zero.shapes, self.moment_dtype)
        self.step = Step(
            self.loss, self.zero, self.optimizer, self.schedule.micro_batches, self.schedule.clip_norm,
            has_terms=bool(self.terms), ema=self.ema, gradient_dtype=self.gradient_dtype,
        )  # fmt: skip
        self.average = Average(self.world.size)
        self._begin()

    def following(self, **changes: Any) -> Trainer:
        """A trainer of another run of the same weights, by this one's compiled graphs; the optimizer starts over.

        Args:
            changes: fields that differ: `run` and what no graph holds.
        """
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        other._begin()
        other.state.restart()
        return other

    def _begin(self) -> None:
        self.rate, self.scale = LearningRate(self.rate_config), LossScale(self.loss_scale)
        self.state = TrainingState(self.zero, self.optimizer, self.ema, self.rate, self.scale)
        self.checkpoints = Checkpoints(self.run.folder / "checkpoints", self.schedule.save, self.world)
        self.saver = Saver(self.checkpoints)
        self._last_saved, self._saved_at = 0, time.monotonic()
        self.metrics = MetricsWriter(self.run.metrics_path) if self.world.is_main else None
        self.trace = self._trace(self.schedule.profile)

    def fit(self, batch_at: Callable[[int, int], Batch]) -> None:
        """Runs the steps that are left.

        Args:
            batch_at: (step, micro-batch) -> batch. It must follow from its arguments alone: a resumed run asks again.

        Raises:
            DivergedError: a loss is not finite; checkpoints from before stay.
            NoSpaceError: there is no room for a checkpoint; those from before stay.
        """
        try:
            self._fit(batch_at)
            with self.busy("saving", self.schedule.steps):
                self.saver.wait()
        finally:
            self.saver.finish()

    def _fit(self, batch_at: Callable[[int, int], Batch]) -> None:
        first = self._resume()
        if first == 0:
            self._validate(0)
        progress = tqdm(total=self.schedule.steps, initial=first, disable=None, file=sys.stderr, desc=self.run.name)
        for step, batches, waited in self._prefetched(batch_at, first + 1):
            self.saver.raise_if_failed()
            is_saved = self._is_saved(step)
            if is_saved:
                self.saver.make_way(step)
            with self.trace.step(step) if self.trace else nullcontext():
                loss = self._update(step, batches, waited)
            progress.update()
            progress.set_postfix(loss=f"{loss:.4f}")
            is_validated = step % self.schedule.validation_interval == 0 or step == self.schedule.steps
            validation_loss = self._validate(step) if is_validated else None
            if is_saved:
                self._save(step, validation_loss)
        progress.close()

    def saved(self) -> Checkpoint:
        """The checkpoint of the last step, after `fit`: its arrays are read when they are asked for."""
        return self.checkpoints.at(self._last_saved)

    def busy(self, kind: str, step: int) -> AbstractContextManager[None]:
        """Lines of the metrics, while work goes on of which nothing else is heard; see `while_busy`."""
        return while_busy(self._alive(kind, step)) if self.metrics else nullcontext()

    def _alive(self, kind: str, step: int) -> Callable[..., None]:
        """What says on rank 0, now and then, that work goes on."""
        return partial(self.metrics.progress, kind=kind, step=step) if self.metrics else lambda **said: None

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

        last = self.schedule.steps
        if first > last:
            return
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(make, first)
            for step in range(first, last + 1):
                asked = time.perf_counter()
                batches = pending.result()
                if step < last:
                    pending = pool.submit(make, step + 1)
                yield step, batches, time.perf_counter() - asked

    def _update(self, step: int, batches: list[Batch], waited: float) -> float:
        self._compile(step, batches)
        started, lr = time.perf_counter(), self.rate.at(step)
        inputs = [tuple(map(ms.Tensor, batch.inputs)) for batch in batches]
        *totals, norm = map(float, self.step(inputs, lr, self.scale.value))
        self._check_finite("loss", totals, step, batches)
        if not self.scale.observe(math.isfinite(norm)):
            self._check_finite("gradient norm", [norm], step, batches)
        self._record_step(step, batches, totals, lr, norm, time.perf_counter() - started, waited)
        return totals[0]

    def _compile(self, step: int, batches: list[Batch]) -> None:
        """Compiles the graphs of shapes that are new, and logs how long each took, apart from the steps' times."""
        for batch in batches:
            shape = batch.inputs[0].shape
            if shape in self._seen:
                continue
            started = time.perf_counter()
            with self.busy("compiling", step):
                self.step.compile(tuple(map(ms.Tensor, batch.inputs)))
            self._seen.add(shape)
            seconds = round(time.perf_counter() - started, 3)
            self._write(kind="compile", step=step, media=batch.media, shape=list(shape), seconds=seconds)

    def _over_ranks(self, values: np.ndarray) -> np.ndarray:
        """The mean of each value over the ranks, which speak once."""
        return self.average(ms.Tensor(values, ms.float32)).asnumpy()

    def _write(self, **values: Any) -> None:
        if self.metrics:
            self.metrics.write(**values)

    def _check_finite(self, what: str, values: list[float], step: int, batches: list[Batch]) -> None:
        if not np.isfinite(values).all():
            names = ", ".join(name for batch in batches for name in batch.names)
            raise DivergedError(
                f"{what} {values[0]} at step {step} of {self.run.name} (this rank's samples: {names}); the last "
                f"checkpoint is from before: lower the learning rate, or take the samples out"
            )

    def _record_step(
        self, step: int, batches: list[Batch], totals: list[float], lr: float, norm: float, seconds: float,
        waited: float,
    ) -> None:  # fmt: skip
        values = dict(zip(("loss", *self.terms), totals, strict=False))
        tokens = sum(batch.tokens for batch in batches) * self.world.size
        media = {batch.media for batch in batches}
        self._write(
            kind="train", step=step, steps=self.schedule.steps, **values, lr=lr,
            grad_norm=norm if math.isfinite(norm) else None, seconds=round(seconds, 4), data_wait=round(waited, 4),
            media=media.pop() if len(media) == 1 else "mixed", samples=sum(len(b.inputs[0]) for b in batches),
            tokens_per_second=round(tokens / seconds, 1), memory_bytes=peak_memory(),
            **({"card_memory_bytes": card} if (card := card_memory()) else {}),
            **({"loss_scale": self.scale.value} if self.loss_scale != 1 else {}),
        )  # fmt: skip

    def _validate(self, step: int) -> float:
        """Measures and samples the weights that are to be used: the averaged ones, where there are any."""
        with self.ema.swapped() if self.ema else nullcontext():
            loss = self._measure(step)
            self._sample(step)
        if step and self.rate.observe(loss):
            self._write(kind="plateau", step=step, scale=self.rate.scale)
        return loss

    def _measure(self, step: int) -> float:
        self._write(kind="validating", step=step)
        started = time.perf_counter()
        with self.busy("validating", step):
            share = dict(sorted(self.validate(self._alive("validating", step)).items()))
        values = dict(zip(share, map(float, self._over_ranks(np.array(list(share.values())))), strict=True))
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"validation loss {values['loss']} at step {step} of {self.run.name}")
        seconds = round(time.perf_counter() - started, 3)  # the first time its compilation too
        self._write(kind="validation", step=step, steps=self.schedule.steps, **values, seconds=seconds)
        return values["loss"]

    def _sample(self, step: int) -> None:
        if self.sample is None:
            return
        started = time.perf_counter()
        with self.busy("sampling", step):
            self.sample(step)
        self._write(kind="sampled", step=step, seconds=round(time.perf_counter() - started, 3))  # compilation too

    def _is_saved(self, step: int) -> bool:
        """Whether there is to be a checkpoint of a step; where minutes count, rank 0's clock says so to all."""
        save = self.schedule.save
        if step % save.interval == 0 or step == self.schedule.steps:
            return True
        if save.minutes is None:
            return False
        is_late = self.world.is_main and time.monotonic() - self._saved_at >= 60 * save.minutes
        return bool(self._over_ranks(np.array([is_late]))[0] > 0)

    def _save(self, step: int, validation_loss: float | None) -> None:
        """Copies what this rank holds, which is written while training goes on."""
        self._write(kind="saving", step=step)
        started = time.perf_counter()
        facts = {"validation_loss": validation_loss, **self.run.identity}
        self.saver.start(step, self.state.parts(), self.state.numbers() | facts, self._alive("saving", step))
        self._last_saved, self._saved_at = step, time.monotonic()
        self._write(kind="copied", step=step, seconds=round(time.perf_counter() - started, 4))

    def _resume(self) -> int:
        if self.world.is_main:
            self.checkpoints.sweep()
        with self.busy("loading", 0):
            checkpoint = newest(self.checkpoints) or (self.start() if self.start else None)
        step = checkpoint.step if checkpoint else 0
        if self.metrics:
            self.metrics.drop_after(step if checkpoint else -1)
        self._write(kind="state", step=0, **self.step.bytes_held())
        if checkpoint:
            with self.busy("loading", 0):
                self.state.restore(checkpoint, f"{self.run.name}, step {step}")
            self._write(kind="resumed", step=step)
            self._last_saved = step
        return step
