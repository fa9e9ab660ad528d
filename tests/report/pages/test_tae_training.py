import re

import pytest

from moviegen import config, runs
from moviegen.report import plots, published
from moviegen.report.pages import tae_training, tae_training_convolution
from tests.report.making import cells, finished, labels, svg, words


def test_without_a_run_a_table_says_so(params):
    assert "not run here" in tae_training.inflation(None).data
    rows = cells(tae_training.terms(params, {"tae-opl-on": None, "tae-image": None})).set_index("run")
    assert rows.loc["OPL on", "steps"] == "not run yet: open 03_tae_training.ipynb"
    assert rows.loc["images", "steps"] == "its weights are given"  # tae.vae_checkpoint


def test_terms_are_means_of_the_last_steps(params):
    run = finished(params, "tae-opl-on")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 13):
        writer.write(kind="train", step=step, loss=2.0, reconstruction=step / 100, outlier=0.25, seconds=0.125 * step)
    terms = cells(tae_training.terms(params, {"tae-opl-on": run})).iloc[0]
    assert float(terms["reconstruction loss"]) == pytest.approx(0.075)  # the mean of 0.03 to 0.12
    assert float(terms["outlier loss"]) == 0.25
    assert terms["perceptual loss"] == "not in the loss"


def test_a_run_that_did_not_train_claims_no_loss(params):
    row = cells(tae_training.terms(params, {"tae-opl-on": None})).iloc[0]
    losses = {row[f"{term} loss"] for term in ("reconstruction", "perceptual", "kl", "outlier")}
    assert losses == {"not run yet: open 03_tae_training.ipynb"}


def test_diagram_has_the_channels_of_the_recipe(params):
    drawing, config = svg(tae_training.diagram(params.tae.model)), params.tae.model
    for multiplier in config.channel_multipliers:
        assert f"<!-- {config.base_channels * multiplier} -->" in drawing


def test_the_kernel_that_is_drawn_is_the_identity_in_its_middle_alone():
    figure = tae_training.convolution()
    filled = re.findall(rf'M (\S+) (\S+) [^"]*"[^>]*fill: {plots.ACCENT}; stroke', svg(figure))
    columns, rows = ({corner[axis] for corner in filled} for axis in (0, 1))
    assert len(filled) == len(columns) == len(rows) == tae_training_convolution.CHANNELS
    assert [text for text in labels(figure) if text in ("zeros", "identity")] == ["zeros", "identity", "zeros"]


def test_hyperparameters_are_those_of_the_run_beside_the_published_ones():
    params = config.load("tiny", {"tae.loss.outlier_radius": 1.25, "tae.vae_checkpoint": ""})
    rows = cells(tae_training.hyperparameters(params)).astype(str).set_index("hyper-parameter")
    assert list(rows.loc["r of the outlier penalty"])[1:] == ["-", "-", "1.25", "-"]
    assert rows.loc["learning rate", "original report"] == "1e-05"
    assert rows.loc["clip (HxWxT)", "single frames"] == "32x32x1"
    published_names = set(published.TAE_HYPERPARAMETERS)
    assert published_names <= set(rows.index)


def test_compression_is_that_of_the_recipes_clips():
    params = config.load("tiny", {"tae.video.frames": 17})
    said = words(tae_training.compression(params))
    assert "17x64x64 pixels in three colours becomes 3x8x8 latents of 16 channels, and comes back as 24 frames" in said
