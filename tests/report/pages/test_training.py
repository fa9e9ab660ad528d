import re

import pytest

from moviegen import config
from moviegen.report.pages import training
from moviegen.runs import files
from tests.report.making import cells, finished, svg


@pytest.mark.parametrize("make", [lambda params: None, lambda params: finished(params, "latents")])
def test_without_a_count_there_are_no_buckets(params, make):
    assert "not run here" in training.buckets(make(params), 2).data


def test_buckets_hold_the_numbers_of_their_stage(params):
    run = finished(params, "latents")
    counts = {(1, 1, 48, 80): 71, (2, 1, 48, 80): 72, (2, 1, 80, 48): 0, (2, 16, 48, 80): 73, (2, 16, 80, 48): 74}
    lines = [",".join(map(str, (*bucket, clips, 5))) for bucket, clips in counts.items()]
    files.write_text(run.folder / "buckets.csv", "\n".join(["stage,frames,height,width,clips,held_out", *lines]) + "\n")
    one, several = (svg(training.buckets(run, stage)) for stage in (1, 2))
    labels = [re.findall(r"<!-- (.*?) -->", drawing) for drawing in (one, several)]
    assert [label for label in labels[0] if label.isdigit()] == ["48", "71"]
    assert [label for label in labels[1] if label.isdigit()] == ["80", "48", "72", "0", "73", "74"]
    assert "images" in labels[0]
    assert "16 frames" not in labels[0]
    assert {"images", "16 frames"} <= set(labels[1])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_recipe_is_the_one_of_the_stage(params, stage):
    rows = cells(training.recipe(params, stage)).set_index("parameter")["value"]
    recipe = params.recipes[stage]
    assert rows["updates"] == str(recipe.train.steps)
    assert rows["frames"] == ", ".join(map(str, recipe.dataset.frames))


@pytest.mark.parametrize(("steps", "can_be"), [(300, False), (301, True), (400, True)])
def test_a_run_that_is_too_short_for_its_plateau_rule_says_so(steps, can_be):
    """The first validation is always the best so far: a rule of 3 takes 4."""
    params = config.load("tiny", {"train.steps": steps, "valid.frequency": 100, "train.lr_scheduler.patience": 3,
                                  "train.save.interval": 100})  # fmt: skip
    said = cells(training.recipe(params, 1)).set_index("parameter")["value"]["on a plateau"]
    assert said.startswith("rate times 0.5 after 3 validations without improvement")
    assert said.endswith(": never in this run, which has 3") != can_be
