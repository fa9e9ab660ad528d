import pytest

from moviegen import runs
from moviegen.report.pages import tae_training
from tests.report.making import cells, finished, svg


@pytest.mark.parametrize("show", [lambda: tae_training.inflation(None), lambda: tae_training.terms({"images": None})])
def test_without_a_run_a_table_says_so(show):
    assert "not run here" in show().data


def test_terms_are_means_of_the_last_steps(params):
    run = finished(params, "tae-opl-on")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 13):
        writer.write(kind="train", step=step, loss=2.0, reconstruction=step / 100, outlier=0.25, seconds=0.125 * step)
    terms = cells(tae_training.terms({"OPL on": run})).iloc[0]
    assert float(terms["reconstruction loss"]) == pytest.approx(0.075)  # the mean of 0.03 to 0.12
    assert float(terms["outlier loss"]) == 0.25
    assert terms["perceptual loss"] == "not in the loss"


def test_a_run_that_did_not_train_claims_no_loss(params):
    row = cells(tae_training.terms({"OPL on": None})).iloc[0]
    assert {row[f"{term} loss"] for term in ("reconstruction", "perceptual", "kl", "outlier")} == {"not run here"}


def test_diagram_has_the_channels_of_the_recipe(params):
    drawing, config = svg(tae_training.diagram(params.tae.model)), params.tae.model
    for multiplier in config.channel_multipliers:
        assert f"<!-- {config.base_channels * multiplier} -->" in drawing
