"""Sentences follow from parameters and from the files of runs."""

import re

import pytest

from moviegen import config, runs
from moviegen.report import findings


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr("moviegen.programs.code_hash", lambda module: module)


def begun(name):
    run = runs.find(config.load("tiny"), name)
    run.write_params()
    return run


def said(note):
    """A note's words."""
    return re.sub("<.*?>", "", note.data)


# --- the text encoders ---


def test_stand_ins_are_named_where_no_folder_is():
    said_of_all = said(findings.text_encoders(config.load("tiny")))
    assert "in the place of UL2, MetaCLIP and ByT5 there are seeded, frozen stand-ins" in said_of_all
    assert "they understand nothing" in said_of_all
    assert "read from" not in said_of_all


def test_folders_are_named_and_escaped():
    one = said(findings.text_encoders(config.load("tiny", {"text.metaclip.folder": "weights/a<b"})))
    assert "in the place of UL2 and ByT5 there are" in one
    assert "MetaCLIP is read from weights/a&lt;b." in one
    folders = {f"text.{name}.folder": f"weights/{name}" for name in ("ul2", "metaclip", "byt5")}
    every = said(findings.text_encoders(config.load("tiny", folders)))
    assert "stand-in" not in every.lower()
    assert all(f"{title} is read from weights/{title.lower()}." in every for title in ("UL2", "MetaCLIP", "ByT5"))


@pytest.mark.parametrize("scale", ["smoke", "tiny", "1B", "5B", "30B"])
def test_every_scale_says_what_its_encoders_are(scale):
    params = config.load(scale)
    shown = said(findings.text_encoders(params))
    for name, encoder in params.text:
        title = findings.ENCODER_TITLES[name]
        assert (f"{title} is read from {encoder.folder}." in shown) == bool(encoder.folder)


def test_padding_and_dropped_captions_are_those_of_the_recipes():
    plain = said(findings.text_inputs(config.load("tiny")))
    assert plain == "Padding is masked. Of the training samples 20 % have their caption dropped."
    params = config.load("tiny", {"model.attend_to_padding": True, "stages.2.dataset.text_drop_prob": 0.125})
    shown = said(findings.text_inputs(params))
    assert "Padding is not masked, as when the published weights were trained." in shown
    assert "Of the training samples 20 % in stage 1, 12.5 % in stage 2 and 20 % in stage 3 have" in shown


# --- the schedules ---


def errors(**by_schedule):
    """A run whose errors with 5, 10 and 50 steps are these."""
    run, lines = begun("schedule-error"), ["schedule,steps,error,least,most,seconds"]
    for name, values in by_schedule.items():
        for steps, value in zip((5, 10, 50), values, strict=True):
            lines.append(f"{name.replace('_', '-')},{steps},{value},0,1,1")
    runs.write_text(run.folder / "errors.csv", "\n".join(lines) + "\n")
    return run


@pytest.mark.parametrize(
    ("quadratic", "smooth", "nearest", "verdict"),
    [
        ((0.9, 0.7, 0.3), (0.8, 0.5, 0.4), "linear with 5, 10 and 50 steps", "not confirmed"),
        ((0.3, 0.2, 0.05), (0.4, 0.5, 0.01),
         "linear-quadratic with 5 and 10 steps and linear-quadratic-smooth with 50 steps", "confirmed here"),
        ((0.6, 0.3, 0.02), (0.7, 0.7, 0.7), "linear with 5 steps and linear-quadratic with 10 and 50 steps",
         "confirmed in part here by this measure: only with 10 and 50 steps it ends nearer than equal ones"),
    ],
)  # fmt: skip
def test_schedules_claim_is_judged_by_the_errors(quadratic, smooth, nearest, verdict):
    run = errors(linear=(0.5, 0.4, 0.1), linear_quadratic=quadratic, linear_quadratic_smooth=smooth)
    found = findings.schedule_error(run)
    assert f"the many-step solution is {nearest}. The claim for linear-quadratic is {verdict}" in said(found)
    assert f'href="provenance.html#{run.name}"' in found.data


# --- retrieval ---


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.9, "reached: 90.0 %"), (0.8958, "not reached: 89.6 %"), (0.4583, "not reached: 45.8 %")]
)
def test_retrievals_goal_is_reached_or_not(share, verdict):
    run = begun("retrieval")
    runs.write_json(run.folder / "summary.json", {"share_nearest": share, "chance": 1 / 30})
    found = findings.retrieval(run)
    assert said(found).startswith(f"The goal of 90.0 % is {verdict} were found, where chance finds 3.3 %.")
    assert f'href="provenance.html#{run.name}"' in found.data


@pytest.mark.parametrize("finding", [findings.schedule_error, findings.retrieval])
def test_without_a_run_there_is_no_finding(finding):
    assert "not run here" in finding(None).data
