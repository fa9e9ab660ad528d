import pytest

from moviegen import config, runs
from moviegen.plan.verdict import stage_verdict
from moviegen.report.pages import overview
from moviegen.report.planned import published_card
from tests.report.making import cells, finished


@pytest.mark.parametrize(
    "show",
    [
        lambda params: overview.summary(params, None, dict.fromkeys((1, 2, 3)), None),
    ],
)
def test_without_a_run_a_table_says_so(params, show):
    assert "not run here" in show(params).data


def test_support_is_evident_from_runs_or_from_the_plan_and_claims_stand_beside(params):
    rows = cells(overview.support(params, {1: finished(params, "stage1"), 2: None, 3: None})).astype(str)
    *published, own = rows.set_index("model").itertuples()
    size = "x".join(map(str, params.recipes[1].dataset.longest_clip))
    assert own[:2] == ("tiny", "this report, recipe tiny")
    assert own[2:4] == (f"verified here: {size}", "runs here: 16x48x80; not run yet: open 06_training.ipynb, stage 2")
    assert [row[0] for row in published] == ["1B", "5B", "30B"] * 2
    for claimed, counted in zip(published[:3], published[3:], strict=True):
        for stage in (1, 2, 3):
            _, verdict = stage_verdict(config.load(counted[0]), stage, published_card())
            assert counted[stage + 1].startswith("fits by plan" if verdict.fits else "does not fit")
        assert claimed[1].startswith("published: original report")
    assert published[2][2:] == ("supported: images", "accuracy verified: 256 frames at 256 px",
                                 "to do: 256 frames at 768 px")  # fmt: skip


def test_at_a_scale_of_cards_its_own_recipe_is_planned_and_stands_once():
    rows = cells(overview.support(config.load("5B", {"launch.max_device_memory": "9GB"}), dict.fromkeys((1, 2, 3))))
    assert list(rows["model"]) == ["1B", "5B", "30B", "1B", "30B", "5B"]
    assert rows["stage 3: higher resolution"][5].startswith("does not fit: 256x")


def test_summary_has_the_last_validation_loss_of_each_stage(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step, loss in ((4, 0.9), (8, 0.4321)):
        writer.write(kind="validation", step=step, steps=8, loss=loss)
    rows = cells(overview.summary(params, None, {1: None, 2: run, 3: None}, None)).set_index("result")["value"]
    assert rows["validation loss at the end of stage 2"] == "0.4321"
    assert rows["validation loss at the end of stage 1"] == "not run here"
