import pytest

from moviegen import runs
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
    assert "not run here" in show(params).data


def test_seconds_a_step_are_the_median_once_compiled(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 9):
        media = "video" if step % 2 else "image"
        writer.write(kind="train", step=step, steps=8, loss=1 / step, lr=1e-3, seconds=step / 10, media=media)
    rows = cells(cost.timings(params, {1: None, 2: run, 3: None}))
    assert list(rows["here"])[-3:] == ["not run here", "0.550", "not run here"]


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
    rows = cells(cost.how_far(foretold))
    assert list(rows["software"]) == ["MindSpore 2.3.1", "MindSpore 2.7.0"]
    assert list(rows["rows"]) == ["9", "7"]


def test_the_figure_names_every_row(foretold):
    drawing = svg(cost.scatter(foretold))
    for timing in TIMINGS:
        assert drawing.count(f"<!-- {timing.size} {timing.stage} -->") == 2


def test_scaling_has_the_fastest_division_of_each_number_of_cards(foretold):
    lines = cost.scaling(foretold)
    assert [{point.shards for point in points} for points in lines] == [{8}, {16}, {24}, {48}]
    rows = cells(cost.scaling_rows(lines))
    assert {"8", "48", "64", "3,072"} <= set(rows["cards"])
    for _, row in rows.iterrows():
        cards = int(row["cards"].replace(",", ""))
        seconds = [point.seconds for points in lines for point in points if point.cards == cards]
        assert float(row["s an update"]) == pytest.approx(min(seconds), rel=5e-3)
    drawing = svg(cost.scaling_curves(lines))
    assert "<!-- 48 share a video -->" in drawing
