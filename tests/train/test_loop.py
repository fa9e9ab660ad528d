"""Interrupted training goes on as if it never stopped, and diverging training says where."""

import ast
import inspect
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen.config import LRScheduler, Optimizer, Profile, Save
from moviegen.device.profiler import StepTrace
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.programs import train_dit
from moviegen.report import progress
from moviegen.runs import metrics as metrics_module
from moviegen.runs import repeated
from moviegen.runs.files import NoSpaceError
from moviegen.runs.metrics import read_metrics
from moviegen.runs.weights import to_arrays
from moviegen.train import loop
from moviegen.train.ema import EMA
from moviegen.train.loop import Batch, DivergedError, Schedule, Trainer
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
    return Batch(regression_batch([step, micro]), "image", (f"clip-{step}-{micro}.mp4",), tokens=7)


def trainer(folder, validate=lambda alive: {"loss": 1.0, "psnr": 30.0}, profile=None):
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


def all_metrics(trained, *kinds):
    lines = [json.loads(line) for line in trained.run.metrics_path.read_text().splitlines()]
    return [line for line in lines if line["kind"] in kinds]


def metrics(trained, *kinds):
    timed = {"seconds", "data_wait", "tokens_per_second", "memory_bytes"}
    return [{k: v for k, v in line.items() if k not in timed} for line in all_metrics(trained, *kinds)]


def state_of(trained):
    moments = {name: moment for name, _, moment in trained.optimizer.moments()}
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


def test_a_plateau_and_a_resumed_run_are_told(uninterrupted, resumed):
    cuts = [(line["step"], line["scale"]) for line in metrics(uninterrupted, "plateau")]
    assert cuts == [(4, 0.5), (6, 0.25), (7, 0.125)]
    assert metrics(resumed[0], "plateau") == metrics(uninterrupted, "plateau")
    assert [line["step"] for line in metrics(resumed[0], "resumed")] == [4]
    assert metrics(uninterrupted, "resumed") == []


def test_metrics_of_a_resumed_run_say_the_same_but_for_what_a_clock_measured(uninterrupted, resumed):
    said, again = (repeated.lines(read_metrics(of.run.metrics_path)) for of in (uninterrupted, resumed[0]))
    assert {line["kind"] for line in said} == {"train", "validation", "plateau"}
    assert again == said


def test_lines_of_what_takes_long_are_not_compared():
    trees = [ast.parse(inspect.getsource(module)) for module in (loop, train_dit)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    kinds = {call.args[0].value for call in calls if getattr(call.func, "attr", "") == "busy"}
    assert kinds >= {"validating", "sampling", "decoding"}
    assert kinds <= repeated.ALIVE & {*progress.BESIDE, "compiling"}


def test_samples_are_of_the_weights_that_are_validated_and_change_nothing(uninterrupted, tmp_path):
    seen = {"validated": [], "sampled": []}
    trained = trainer(tmp_path)
    trained.ema = EMA(trained.zero, 0.5)  # not in the step's graph: it stays as it begins, and so is told apart

    def look(what):
        seen[what].append({name: weight.asnumpy().copy() for name, weight in trained.zero.weights.items()})

    trained.validate = lambda alive: look("validated") or {"loss": 1.0}
    steps = []
    trained.sample = lambda step: look("sampled") or steps.append(step)
    trained.fit(batch_at)
    assert steps == [0, 2, 4, 6, 7] == [line["step"] for line in metrics(trained, "sampled")]
    for validated, sampled in zip(seen["validated"], seen["sampled"], strict=True):
        for name, weight in validated.items():
            np.testing.assert_array_equal(sampled[name], weight)
    average = trained.ema.arrays()
    for name, weight in trained.zero.arrays().items():
        np.testing.assert_array_equal(seen["sampled"][-1][name], average[name])
        np.testing.assert_array_equal(weight, uninterrupted.zero.arrays()[name])


def test_the_gradients_norm_is_that_of_the_mean_over_micro_batches(uninterrupted):
    start = to_arrays(dict(Regression().parameters_and_names()))
    of_weight, of_bias = np.zeros((3, 2)), np.zeros(2)
    for x, y in (batch_at(1, micro).inputs for micro in (0, 1)):
        error = x @ start["weight"] + start["bias"] - y
        of_weight += x.T @ error * 2 / error.size / 2
        of_bias += error.sum(0) * 2 / error.size / 2
    norm = np.sqrt((of_weight**2).sum() + (of_bias**2).sum())
    assert metrics(uninterrupted, "train")[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_every_line_has_its_times_speed_and_memory(uninterrupted):
    for line in all_metrics(uninterrupted, "train"):
        tokens, half_a_digit = line["tokens_per_second"] * line["seconds"], 5e-5 * line["tokens_per_second"]
        assert tokens == pytest.approx(2 * 7, abs=half_a_digit + 0.1)
        assert line["data_wait"] >= 0
        assert line["memory_bytes"] > 10**7
    lines = [line for line in all_metrics(uninterrupted, "state", "compile", "validation") if line["kind"] != "train"]
    assert [line["kind"] for line in lines] == ["state", "validation", "compile", *["validation"] * 4]
    assert all(line["seconds"] >= 0 for line in lines[1:])
    waited = [(line["kind"], line["step"]) for line in all_metrics(uninterrupted, "validating", "saving")]
    assert waited[:3] == [("validating", 0), ("validating", 2), ("saving", 2)]


def test_validation_says_that_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_module, "PROGRESS_SECONDS", 0)

    def validate(alive):
        for _ in range(3):
            alive()
        return {"loss": 1.0}

    trained = trainer(tmp_path, validate)
    trained.fit(batch_at)
    assert sum(line["step"] == 2 for line in metrics(trained, "validating")) == 1 + 3


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_waits(tmp_path):
    trained, events = small(tmp_path), []
    save = trained.checkpoints.save

    def slow(step, *rest):
        events.append(("begins", step))
        deadline = time.monotonic() + 60
        while step == 1 and "not yet computed" not in events and time.monotonic() < deadline:
            time.sleep(0.01)
        save(step, *rest)
        events.append(("ends", step))

    def batch(step, micro):
        if (step, micro) == (2, 1):  # made while step 1 is computed, or its checkpoint written
            events.append("not yet computed")
        return batch_at(step, micro)

    trained.checkpoints.save = slow
    trained.fit(batch)
    saves = [event for event in events if isinstance(event, tuple)]
    assert saves == [(what, step) for step in range(1, 5) for what in ("begins", "ends")]
    assert trained.checkpoints.steps() == [4, 3, 2, 1]


def test_a_save_that_fails_in_the_background_ends_training(tmp_path):
    trained = small(tmp_path)

    def full(step, *rest):
        raise NoSpaceError(f"no room for step {step}")

    trained.checkpoints.save = full
    with pytest.raises(NoSpaceError, match="no room for step 1"):
        trained.fit(batch_at)
    assert [line["step"] for line in metrics(trained, "train")] == [1]


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, [7, 6, 5, 4, 3, 2, 1]), (1e9, [7, 5]), (None, [7, 5])])
def test_a_checkpoint_is_also_due_when_minutes_have_passed(tmp_path, minutes, kept):
    trained = trainer(tmp_path)
    trained.schedule = replace(trained.schedule, save=Save(interval=5, keep=9, minutes=minutes))
    trained._begin()
    trained.fit(batch_at)
    assert trained.checkpoints.steps() == kept
    losses = {step: trained.checkpoints.at(step).state["validation_loss"] for step in kept}
    assert losses == {step: 1.0 if step % 2 == 0 or step == 7 else None for step in kept}  # of these very weights


def test_a_checkpoint_says_what_ran(uninterrupted):
    state = uninterrupted.checkpoints.latest().state
    assert {name: state[name] for name in ("fingerprint", "seed")} == uninterrupted.run.identity


def small(folder, loss=None, micro_batches=2, steps=4, lr=0.1, **options):
    """A trainer that validates and saves at every step and keeps all of it."""
    loss = loss or Regression()
    zero = Zero(loss, 0, World())
    return Trainer(
        run=FakeRun(folder),
        zero=zero,
        loss=loss,
        terms=("absolute",),
        schedule=Schedule(steps, 1, Save(interval=1, keep=99), micro_batches),
        optimizer_config=Optimizer(eps=1e-8),
        rate_config=LRScheduler(lr=lr, warmup_steps=0, patience=99),
        validate=lambda alive: {"loss": 1.0},
        ema=EMA(zero, 0.9),
        **options,
    )


def saved(trained, step):
    """The files of one checkpoint."""
    return {
        kind: {name: np.asarray(array) for name, array in arrays.items()}
        for kind, arrays in trained.checkpoints.at(step).files.items()
    }


def assert_same(found, wanted, **bounds):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, err_msg=name, **bounds)


def test_a_shape_is_compiled_once_ranks_speak_once_and_both_media_are_logged_as_mixed(tmp_path):
    def batch(step, micro):
        is_video = micro == 1 and step > 1
        arrays = tuple(np.concatenate([array] * (2 if is_video else 1)) for array in batch_at(step, micro).inputs)
        return Batch(arrays, "video" if is_video else "image")

    trained, spoken = small(tmp_path), []
    average = trained.step.average
    trained.step.average = trained.average = lambda values: spoken.append(values.shape) or average(values)
    trained.fit(batch)
    compiled = [(line["step"], line["media"], line["shape"]) for line in metrics(trained, "compile")]
    assert compiled == [(1, "image", [4, 3]), (2, "video", [8, 3])]
    assert len(trained.step.backward.compile_cache) == 2
    assert len(trained.step.finish.compile_cache) == 1
    assert [line["media"] for line in metrics(trained, "train")] == ["image", "mixed", "mixed", "mixed"]
    assert spoken == [(1,), *[(2,), (1,)] * 4]  # the first validation; loss and term of each update, and a validation


def test_four_micro_batches_of_two_equal_one_of_eight(tmp_path):
    def batch(size):
        def of(step, micro):
            whole = [np.concatenate(pair) for pair in zip(*(regression_batch([step, i]) for i in (0, 1)), strict=True)]
            return Batch(tuple(array[micro * size :][:size] for array in whole), "image")

        return of

    trained = [small(tmp_path / str(count), micro_batches=count) for count in (1, 4)]
    for one, size in zip(trained, (8, 2), strict=True):
        one.fit(batch(size))
    big, accumulated = (saved(one, 4) for one in trained)
    assert np.abs(big["weights"]["weight"] - Regression().weight.asnumpy()).max() > 0.1
    assert_same(accumulated["weights"], big["weights"], atol=1e-6, rtol=0)
    assert_same(accumulated["ema"], big["ema"], atol=1e-6, rtol=0)


def test_the_average_moves_once_an_update_and_is_what_validation_sees(tmp_path):
    trained, validated = small(tmp_path), []
    trained.validate = lambda alive: validated.append(trained.zero.arrays()) or {"loss": 1.0}
    trained.fit(batch_at)
    average = to_arrays(dict(Regression().parameters_and_names()))
    for step in range(1, 5):
        files = saved(trained, step)
        decay = (1 + step) / (10 + step)  # below 0.9 until the 80th
        average = {name: decay * array + (1 - decay) * files["weights"][name] for name, array in average.items()}
        assert_same(files["ema"], average, atol=1e-6)
        assert_same(validated[step], files["ema"], rtol=0)
        assert np.abs(files["weights"]["weight"] - files["ema"]["weight"]).max() > 0.001


def test_an_overflow_halves_the_loss_scale_and_changes_neither_weights_nor_average(tmp_path):
    def batch(step, micro):
        x, y = regression_batch([step, micro])
        return Batch((x * np.float32(1e12 if step == 3 else 1), y), "image")

    trained = small(tmp_path, loss_scale=1024.0)
    trained.fit(batch)
    lines = metrics(trained, "train")
    assert [line["loss_scale"] for line in lines] == [1024, 1024, 512, 512]
    assert [line["grad_norm"] is None for line in lines] == [False, False, True, False]
    before, after, moved = (saved(trained, step) for step in (2, 3, 4))
    for name in ("weights", "optimizer", "ema"):
        assert_same(after[name], before[name], rtol=0)
    assert np.abs(moved["weights"]["weight"] - after["weights"]["weight"]).min() > 1e-3
    again = small(tmp_path, loss_scale=1024.0)
    again.fit(batch)
    assert again.scale.state() == trained.scale.state()


class HalfPrecision(Regression):
    """The same in float16, but for the weights."""

    def construct(self, x, y):
        x, weight, bias = (ops.cast(one, ms.float16) for one in (x, self.weight, self.bias))
        error = ops.matmul(x, weight) + bias - ops.cast(y, ms.float16)
        return ops.cast(error * error, ms.float32).mean(), ops.cast(error.abs(), ms.float32).mean()


def test_float16_finds_its_loss_scale_and_learns(tmp_path):
    def batch(step, micro):
        x, _ = regression_batch([step, micro])
        return Batch((x, x[:, :2] - x[:, 1:]), "image")

    trained = small(tmp_path, HalfPrecision(), steps=40, loss_scale=2.0**20)
    trained.fit(batch)
    lines = metrics(trained, "train")
    overflows = [line["grad_norm"] is None for line in lines]
    assert overflows[0]
    assert not any(overflows[10:])
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.1 * lines[0]["loss"]


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
        trainer(tmp_path, validate=lambda alive: {"loss": float("inf")}).fit(batch_at)


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


def test_a_trace_that_training_outruns_ends_with_it(tmp_path):
    trained = trainer(tmp_path / "short", profile=Profile(first=STEPS - 1, steps=100))
    trained.fit(batch_at)
    (trace,) = (tmp_path / "short" / "profile").glob("rank0*/ASCEND_PROFILER_OUTPUT/trace_view.json")
    assert any("MatMul" in event.get("name", "") for event in json.loads(trace.read_text()))


def test_a_step_that_raises_ends_the_trace(tmp_path):
    step_trace = StepTrace(tmp_path / "profile", 1, 3, rank=0)
    with pytest.raises(ZeroDivisionError), step_trace.step(1):
        ms.ops.matmul(ms.Tensor(np.ones((2, 2), np.float32)), ms.Tensor(np.ones((2, 2), np.float32))).asnumpy()
        1 / 0  # noqa: B018
    assert list((tmp_path / "profile").glob("rank0*/ASCEND_PROFILER_OUTPUT/trace_view.json"))
