import shlex

import pytest

from moviegen import config
from moviegen.report import markup, reproduce
from tests.report.making import finished

SHA = "ce8a8f0fbea0e7415d75712dca9a2b4ede12b754"


def lines(params, name="data", **manifest):
    return reproduce.commands([finished(params, name, **manifest)]).splitlines()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"assets": "none"},
        {"train.steps": 50, "stages.2.train.steps": 9, "sample.size": [48, 80], "data.root": "/a b/c's"},
        {"assets": "none", "seed": 7, "sample.guidance": 2.5},
    ],
)
def test_the_command_has_the_very_parameters(overrides):
    params = config.load("tiny", overrides)
    command = shlex.split(lines(params)[-1])
    assert command[:6] == [".venv/bin/python", "-m", "moviegen", "report", "--config", "tiny"]
    assert config.load("tiny", config.parse_overrides(command[6:])) == params


def test_only_what_differs_is_typed():
    words = shlex.split(lines(config.load("tiny", {"seed": 7}))[-1])
    assert words[6:] == ["--seed", "7"]


def test_the_commit_is_checked_out_and_what_no_commit_has_is_said(params):
    assert lines(params, commit=SHA)[0] == f"git checkout {SHA}"
    assert lines(params, commit=f"{SHA}+changes")[0] == f"git checkout {SHA}  # with changes that are in no commit"
    assert lines(params, commit="unknown")[0].startswith("#")


def test_runs_of_several_commits_are_told_apart(params):
    data, text = finished(params, "data", commit=SHA), finished(params, "text", commit=SHA[::-1])
    first, second, *_ = reproduce.commands([data, text]).splitlines()
    assert (first, second) == (f"git checkout {SHA}  # {data.name}", f"git checkout {SHA[::-1]}  # {text.name}")


def test_each_card_of_a_run_has_it_and_no_other(params):
    run = finished(params, "data", commit=SHA)
    assert f"<pre>git checkout {SHA}\n" in markup.card("<p>x</p>", "caption", [run]).data
    assert "<pre>" not in markup.card("<p>x</p>", "caption").data
