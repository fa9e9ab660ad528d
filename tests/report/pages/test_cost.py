import math

import pytest

from moviegen import config, plan, runs
from moviegen.plan.published import TIMINGS
from moviegen.report.pages import cost
from tests.report.making import cells, finished, svg


@pytest.mark.parametrize(
    "show",
    [
        lambda params: cost.timings(params, dict.fromkeys((1, 2, 3))),
        lambda params: cost.costs(params, dict.fromkeys((1, 2, 3))),
    ],
)
def test_without_a_run_a_table_says_so(params, show):
    assert "not run yet: open 06_training.ipynb, stage 1" in show(params).data


def test_seconds_a_step_are_the_median_once_compiled():
    """Of an update of four micro-batches, and of each of them."""
    params = config.load("tiny", {"stages.2.train.settings.gradient_accumulation_steps": 4})
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 9):
        media = "video" if step % 2 else "image"
        writer.write(kind="train", step=step, steps=8, loss=1 / step, lr=1e-3, seconds=step / 10, media=media)
    rows = cells(cost.timings(params, {1: None, 2: run, 3: None}))
    absent = [f"not run yet: open 06_training.ipynb, stage {stage}" for stage in (1, 3)]
    assert list(rows["here"])[-3:] == [absent[0], "0.138", absent[1]]
    assert list(rows["here, update"])[-3:] == ["-", "0.550", "-"]
    row = cells(cost.costs(params, {1: None, 2: run, 3: None})).iloc[1]
    samples = int(row["samples an update"])
    assert float(row["s a sample"]) == pytest.approx(float(row["s an update"]) / samples, rel=0.01)


def test_published_updates_are_as_many_micro_batches_as_the_recipes_have(params):
    rows = cells(cost.timings(params, {})).set_index("model, stage")
    assert list(rows.loc["5B, 3", ["2.7.0", "micro-batches", "2.7.0, update"]]) == ["66.2", "5", "331"]
    assert list(rows.loc["30B, 3", ["2.7.0", "micro-batches", "2.7.0, update"]]) == ["29.7", "1", "29.7"]


def test_what_was_not_run_on_cards_is_foretold():
    params = config.load("5B")
    rows = cells(cost.costs(params, dict.fromkeys((1, 2, 3))))
    card = plan.find_card(plan.PUBLISHED_CARD)
    for stage, text in zip((1, 2, 3), rows["s an update"], strict=True):
        said, shown = text.split("; foretold ")
        assert said == "not run here"
        update = plan.update_seconds(plan.stage_work(params, stage), card, plan.validate_newest(card).speed)
        assert float(shown.split()[0]) == pytest.approx(update, rel=0.006)


@pytest.fixture(scope="module")
def foretold():
    return cost.foretold()


def test_every_published_row_stands_beside_what_is_foretold_of_it(foretold):
    rows = cells(cost.published_rows(foretold))
    assert len(rows) == 2 * len(TIMINGS)
    odd = rows[rows["error"] == "not possible"]
    assert set(odd["software"]) == {"MindSpore 2.7.0"}
    assert list(zip(odd["model"], odd["stage"], strict=True)) == [("5B", "2"), ("1B", "2")]
    for _, row in rows.drop(odd.index).iterrows():
        error = float(row["error"].split()[0])
        assert error == pytest.approx(100 * (float(row["by all other rows"]) / float(row["published"]) - 1), abs=0.8)


def test_rows_that_cannot_be_are_named_with_the_reason(foretold):
    shown = cost.impossible_rows(foretold).data
    assert "5B, stage 2, with MindSpore 2.7.0" in shown
    assert "TFLOP/s, and the card has 376" in shown


def test_the_fit_and_its_errors_are_shown_for_each_version(foretold):
    rows = cells(cost.how_far(foretold)).set_index("")
    assert list(rows.columns) == ["MindSpore 2.3.1", "MindSpore 2.7.0"]
    assert list(rows.loc["rows that count"]) == ["9", "7"]
    ways = [
        text.split(" of ")[1] for text in rows.loc["mean error of the rest, whichever half is fitted: median, worst"]
    ]
    assert ways == [f"{math.comb(9, 5)} ways", f"{math.comb(7, 4)} ways"]
    chance = rows.loc["chance that one more such row lies there"]
    assert list(chance) == ["80.0 %", "75.0 %"]  # 8 of 10, 6 of 8: one more is as likely to be an end as each of these


def test_the_figure_names_every_row(foretold):
    drawing = svg(cost.scatter(foretold))
    for timing in TIMINGS:
        assert drawing.count(f"<!-- {timing.size} {timing.stage} -->") == 2
