"""The schedules' errors: against products in closed form, and the program on a small model."""

import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from moviegen import __main__, config, runs
from moviegen.config import ConfigError
from moviegen.flow import schedule
from moviegen.programs import schedule_error
from tests import small_runs

X1 = np.float32([[1, 2]])


def test_errors_are_relative_to_the_length_of_what_was_wanted():
    wanted = np.zeros((2, 1, 2, 2))
    wanted[0, 0, 0], wanted[1, 0, :, 0] = (3, 4), (0, 2)
    found = wanted.copy()
    found[0, 0, 1, 1] += 2.5
    found[1] *= 3
    np.testing.assert_allclose(schedule_error.relative_errors(found, wanted), [0.5, 2.0])


def product(times, rate):
    """What Euler's steps make of dx/dt = rate x."""
    return math.prod(1 + rate * (b - a) for a, b in itertools.pairwise(times))


def compared(x, velocity, steps, reference_steps):
    """Rows of all schedules, of a velocity that is not guided."""
    settings = config.ScheduleError(steps=steps, reference_steps=reference_steps)

    def solved(solution):
        return schedule_error.solve(x, lambda full_steps: velocity, solution)

    reference, _ = solved(schedule_error.reference_of(settings))
    found = {one: solved(one) for one in schedule_error.solutions_of(settings, guidance=1.0)}
    return schedule_error.compare(found, reference)


def test_linear_velocity_gives_the_products_errors():
    rates = (-0.8, 0.5)  # of two prompts
    x = np.float32([[[1, -2]], [[3, 4]]])
    field = np.float32(rates).reshape(2, 1, 1)
    rows = compared(x, lambda x, t: field * x, (2, 10), 200)
    assert [row[:2] for row in rows] == [(name, steps) for name in schedule.SCHEDULES for steps in (2, 10)]
    for name, steps, error, least, most, taken in rows:
        ends = [(product(schedule.get(name, steps), rate), product(schedule.linear(200), rate)) for rate in rates]
        errors = [abs(end - wanted) / wanted for end, wanted in ends]
        assert (error, least, most) == pytest.approx((np.mean(errors), min(errors), max(errors)), abs=1e-5)
        assert taken > 0


def test_the_reference_is_compared_with_itself():
    rows = compared(X1, lambda x, t: x * x, (4, 7), 8)
    errors = {row[:2]: row[2] for row in rows}
    assert min(errors.values()) > 1e-3
    found = {(reference := schedule_error.Solution("same", "linear", 8)): (X1, 1.0)}
    assert schedule_error.compare(found, found[reference][0])[0][2] == 0


def test_a_gated_solution_asks_for_whole_guidance_in_its_first_steps_alone():
    settings, asked = config.ScheduleError(steps=(4, 10), reference_steps=20, guidance_gate=0.25), []
    of_guidance = schedule_error.solutions_of(settings, guidance=3.0)
    gated = [one for one in of_guidance if one.name == schedule_error.GATED]
    assert len(of_guidance) == 2 * len(schedule.SCHEDULES) + 2
    for one in gated:
        schedule_error.solve(X1, lambda full: asked.append(full) or (lambda x, t: x), one)
    assert asked == [1, 3]
    plain = schedule_error.solutions_of(settings, guidance=1.0)
    assert plain == [one for one in of_guidance if one not in gated]  # without guidance there is nothing to reuse


# --- parameters ---


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sample.schedule_error.steps": []}, "sample.schedule_error.steps"),
        ({"sample.schedule_error.steps": [1, 2]}, "sample.schedule_error.steps.0 = 1"),
        ({"sample.schedule_error.prompts": 0}, "sample.schedule_error.prompts = 0"),
        ({"sample.schedule_error.reference_steps": 4}, "reference_steps 4 must be more than each of steps (2, 4)"),
    ],
)
def test_impossible_parameters_are_refused(overrides, message):
    with pytest.raises(ConfigError) as caught:
        config.load("smoke", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("scale", ("1B", "5B", "30B"))
def test_real_scales_measure_the_papers_claim(scale):
    settings = config.load(scale).sample.schedule_error
    assert settings.reference_steps == 1000
    assert 50 in settings.steps


# --- the program ---


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Parameters of a small report whose stage 2 is trained."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", {"sample.schedule_error.prompts": 2, "stages.2.dataset.size": [32, 48]})
    captions = ["one", "two", "three", "four", "five", "six"]
    small_runs.write_data(params, captions)
    small_runs.write_text(params, captions)
    small_runs.write_dit(params, 2)
    runs.find(params, "schedule-error").write_params()
    return params


def command(params):
    return __main__.main(["schedule-error", "--config", str(runs.find(params, "schedule-error").params_path)])


def test_program_measures_every_schedule_at_stage_2s_size(report):
    assert command(report) == 0
    run = runs.find(report, "schedule-error")
    assert run.complete
    rows = pd.read_csv(run.folder / "errors.csv")
    assert list(rows.columns) == ["schedule", "steps", "error", "least", "most", "seconds"]
    assert list(zip(rows["schedule"], rows["steps"], strict=True)) == [
        (name, steps) for name in (*schedule.SCHEDULES, schedule_error.GATED) for steps in (2, 4)
    ]
    errors = rows.pivot(index="schedule", columns="steps", values="error")
    assert (errors[4] < errors[2]).all()
    assert (errors > 1e-4).all(axis=None)
    assert (rows["least"] < rows["error"]).all()  # two captions differ
    assert (rows["error"] < rows["most"]).all()
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (summary["prompts"], summary["frames"], summary["size"]) == (2, 16, [32, 48])
    assert (summary["guidance"], summary["reference_steps"]) == (3.0, 8)
    assert errors[4]["linear-quadratic"] != errors[4][schedule_error.GATED]
    # 8 steps of the reference, and 2 + 4 of each of the three, and of the gated ones
    assert run.metrics() == [
        {"kind": "evaluation", "step": 20, "steps": 32},
        {"kind": "evaluation", "step": 32, "steps": 32},
    ]
    # compiling takes as long as hundreds of evaluations: it is in no solution's time, not in the reference's, the first
    assert summary["reference_seconds"] / 8 < 20 * (rows["seconds"] / rows["steps"]).median()
    goes_on_with_what_is_missing(report, run, rows)


def goes_on_with_what_is_missing(report, run, rows):
    """A finished solution is not solved again; one that is missing comes out with the same bits."""
    file, kept = run.folder / "solutions" / "linear-4.npz", run.folder / "solutions" / "linear-2.npz"
    with np.load(file) as before:
        end = before["end"]
    file.unlink()
    old = kept.stat().st_mtime_ns
    assert command(report) == 0
    assert [line["steps"] for line in run.metrics()] == [4]
    assert kept.stat().st_mtime_ns == old
    with np.load(file) as again:
        assert np.array_equal(again["end"], end)
    pd.testing.assert_frame_equal(pd.read_csv(run.folder / "errors.csv").iloc[:, :5], rows.iloc[:, :5])


def test_a_checkpoint_of_another_size_is_an_error(report, capsys):
    other = report.dit_config(2).model_copy(update={"num_layers": 1})
    small_runs.save_dit(runs.find(report, "stage2").folder / "dit.safetensors", small_runs.random_dit(other))
    assert command(report) == 2
    assert "does not fit the model" in capsys.readouterr().err


def test_without_stage_2_the_command_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    assert __main__.main(["schedule-error", "--config", "smoke"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"run `msrun .*--worker_num=2 .*python -m moviegen train --stage 2 --config", error)
