import pytest

from moviegen import runs
from moviegen.report.pages import overview
from tests.report.making import cells, finished


@pytest.mark.parametrize(
    "show",
    [
        lambda params: overview.support(params, dict.fromkeys((1, 2, 3))),
        lambda params: overview.summary(params, None, dict.fromkeys((1, 2, 3)), None),
    ],
)
def test_without_a_run_a_table_says_so(params, show):
    assert "not run here" in show(params).data


def test_summary_has_the_last_validation_loss_of_each_stage(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step, loss in ((4, 0.9), (8, 0.4321)):
        writer.write(kind="validation", step=step, steps=8, loss=loss)
    rows = cells(overview.summary(params, None, {1: None, 2: run, 3: None}, None)).set_index("result")["value"]
    assert rows["validation loss at the end of stage 2"] == "0.4321"
    assert rows["validation loss at the end of stage 1"] == "not run here"
