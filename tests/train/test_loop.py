"""Interrupted training goes on as if it never stopped, and diverging training says where."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moviegen.config import LRScheduler, Optimizer, Profile, Save
from moviegen.device.collectives import World
from moviegen.parallel.zero import Zero
from moviegen.train.loop import Batch, DivergedError, Schedule, Trainer
from moviegen.weights import to_arrays
from tests.train.conftest import Regression, regression_batch

STEPS, SAVED_EVERY, VALIDATED_EVERY, KILLED_AT = 7, 2, 2, 6  # the last checkpoint before the kill is of step 4


@dataclass(frozen=True)
class FakeRun:
    folder: Path
    name: str = "linear-run"

    @property
    def metrics_path(self):
        return self.folder / "metrics.jsonl"

    @property
    def identity(self):
        return {"fingerprint": "0123", "seed": 1}


def batch_at(step, micro):
    return Batch(regression_batch([step, micro]), "image", (f"clip-{step}-{micro}.mp4",))


def trainer(folder, validate=lambda: {"loss": 1.0, "psnr": 30.0}, profile=None):
    """The validation loss never improves, so the learning rate halves on the way and must be resumed too."""
    loss = Regression()
    return Trainer(
        run=FakeRun(folder),
        zero=Zero(loss, 0, World()),
        loss=loss,
        terms=("absolute",),
        schedule=Schedule(
            STEPS, VALIDATED_EVERY, Save(interval=SAVED_EVERY, keep=2), 2, clip_norm=1.0, profile=profile
        ),
        optimizer_config=Optimizer(weight_decay=0.1),
        rate_config=LRScheduler(lr=0.1, warmup_steps=3, patience=1, min_lr=1e-6),
        validate=validate,
    )


def metrics(trained, *kinds):
    lines = [json.loads(line) for line in trained.run.metrics_path.read_text().splitlines()]
    timed = {"seconds", "data_wait", "tokens_per_second", "memory_bytes"}
    return [{k: v for k, v in line.items() if k not in timed} for line in lines if line["kind"] in kinds]


def state_of(trained):
    moments = {name: moment.asnumpy() for name, (_, moment) in trained.optimizer.moments().items()}
    averages = {f"ema.{name}": array for name, array in trained.ema.arrays().items()} if trained.ema else {}
    return trained.zero.arrays() | moments | averages | {"updates": trained.optimizer.updates.asnumpy()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    trained = trainer(tmp_path_factory.mktemp("whole"))
    trained.fit(batch_at)
    return trained


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")

    def killed(step, micro):
        if step == KILLED_AT:
            raise KeyboardInterrupt
        return batch_at(step, micro)

    with pytest.raises(KeyboardInterrupt):
        trainer(folder).fit(killed)
    asked = []

    def noted(step, micro):
        asked.append((step, micro))
        return batch_at(step, micro)

    trained = trainer(folder)
    trained.fit(noted)
    return trained, asked


def test_metrics_hold_the_losses_of_the_weights_before_each_update(uninterrupted):
    first = metrics(uninterrupted, "train")[0]
    start = to_arrays(dict(Regression().parameters_and_names()))
    errors = np.stack([x @ start["weight"] + start["bias"] - y for x, y in (batch_at(1, m).inputs for m in (0, 1))])
    assert first["loss"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert first["absolute"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert (first["samples"], first["steps"], first["media"]) == (8, STEPS, "image")
    rates = [line["lr"] for line in metrics(uninterrupted, "train")]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.05, 0.05, 0.025])  # halved after steps 4 and 6
    assert [line["step"] for line in metrics(uninterrupted, "validation")] == [0, 2, 4, 6, 7]


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(uninterrupted, resumed):
    trained, asked = resumed
    assert asked == [(step, micro) for step in (5, 6, 7) for micro in (0, 1)]
    assert metrics(trained, "train", "validation") == metrics(uninterrupted, "train", "validation")
    wanted, found = (state_of(one) for one in (uninterrupted, trained))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tobytes() == array.tobytes(), name
    assert trained.rate.state() == uninterrupted.rate.state()


def test_finished_training_has_nothing_left_to_do(resumed):
    trained, _ = resumed
    before = trained.zero.arrays()
    again = trainer(trained.run.folder)
    again.fit(lambda step, micro: pytest.fail(f"asked for step {step}"))
    for name, array in again.zero.arrays().items():
        assert array.tobytes() == before[name].tobytes()


def test_a_loss_that_is_not_finite_is_named_by_step_and_sample(tmp_path):
    def poisoned(step, micro):
        batch = batch_at(step, micro)
        if (step, micro) == (3, 1):
            batch.inputs[0][0, 0] = np.nan
        return batch

    diverging = trainer(tmp_path)
    with pytest.raises(DivergedError, match=r"loss nan at step 3 of linear-run .*clip-3-0\.mp4, clip-3-1\.mp4"):
        diverging.fit(poisoned)
    assert [line["step"] for line in metrics(diverging, "train")] == [1, 2]
    saved = diverging.checkpoints.latest()
    assert saved.step == 2
    for name, array in diverging.zero.arrays().items():
        np.testing.assert_array_equal(array, saved.files["weights"][name])  # the bad gradient reached no weight


def test_a_validation_loss_that_is_not_finite_stops_training(tmp_path):
    with pytest.raises(DivergedError, match="validation loss inf at step 0 of linear-run"):
        trainer(tmp_path, validate=lambda: {"loss": float("inf")}).fit(batch_at)


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path):
    overflowing = np.float32(1e12)  # finite in the loss, but not in the square of the gradients' norm

    def batch(step, micro):
        x, y = regression_batch([step, micro])
        return Batch((x * overflowing if step == 3 else x, y), "image", (f"clip-{step}.mp4",))

    diverging = trainer(tmp_path)
    with pytest.raises(DivergedError, match="gradient norm inf at step 3"):
        diverging.fit(batch)
    assert diverging.checkpoints.latest().step == 2


def test_the_profiler_traces_the_steps_that_are_named_and_no_others(tmp_path):
    for folder, steps in (("two", 2), ("five", 5)):
        trainer(tmp_path / folder, profile=Profile(first=2, steps=steps)).fit(batch_at)
    counts = {}
    for folder in ("two", "five"):
        (trace,) = (tmp_path / folder / "profile").glob("rank0*/ASCEND_PROFILER_OUTPUT/trace_view.json")
        events = json.loads(trace.read_text())
        counts[folder] = sum("MatMul" in event.get("name", "") for event in events)
    assert counts["two"] > 0
    assert counts["five"] * 2 == counts["two"] * 5
