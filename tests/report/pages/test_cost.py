import pytest

from moviegen import runs
from moviegen.report.pages import cost
from tests.report.making import cells, finished


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
