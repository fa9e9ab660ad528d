import pandas as pd
import pytest

from moviegen import runs
from moviegen.report.pages import tae_evaluation
from moviegen.runs import files
from tests.report.making import cells, finished


@pytest.mark.parametrize(
    "show",
    [
        lambda params: tae_evaluation.scores(params, None, {}),
        lambda params: tae_evaluation.mixkit_scores(params, None),
        lambda params: tae_evaluation.classes(None),
        lambda params: tae_evaluation.reconstructions(None, "ucf101"),
    ],
)
def test_without_a_run_the_page_says_so(params, show):
    assert "not run here" in show(params).data


def test_scores_of_every_autoencoder_stand_beside_the_published_ones(params):
    evaluation, trained = finished(params, "tae-evaluation"), finished(params, "tae-opl-on")
    measured = {"clips": 12, "psnr": 24.512, "psnr_ci95": 1.31, "ssim": 0.78, "ssim_ci95": None}
    both = {"ucf101": {"tae-opl-on": measured}, "mixkit": {"tae-mixkit": measured | {"psnr": 19.234}}}
    files.write_json(evaluation.folder / "summary.json", both)
    writer = runs.MetricsWriter(trained.metrics_path)
    for step in range(1, 13):
        writer.write(kind="train", step=step, loss=2.0, reconstruction=step / 100, outlier=0.25, seconds=0.125 * step)
    rows = cells(tae_evaluation.scores(params, evaluation, {"tae-opl-on": trained})).set_index("")
    assert list(rows["PSNR (dB)"])[:2] == ["31.35", "31.17"]
    assert rows.loc["here, OPL on", "PSNR (dB)"] == "24.51 ± 1.3"
    assert rows.loc["here, OPL on", "SSIM"] == "0.780"
    assert float(rows.loc["here, OPL on", "s/step"]) == pytest.approx(
        0.125 * 7.5, abs=1e-3
    )  # the median of steps 3 to 12
    assert rows.loc["here, OPL off", "PSNR (dB)"] == "not run here"
    assert "19.23" in tae_evaluation.mixkit_scores(params, evaluation).data


def test_worst_and_best_classes_are_shown(params):
    evaluation = finished(params, "tae-evaluation")
    rows = [
        {"data_set": "ucf101", "label": f"Class{i:02d}", "model": model, "clips": 2, "psnr": 20 + i, "psnr_ci95": 0.5,
         "ssim": 0.5, "ssim_ci95": ""}
        for i in range(20) for model in ("tae-opl-off", "tae-mixkit")
    ]  # fmt: skip
    files.write_text(evaluation.folder / "classes.csv", pd.DataFrame(rows).to_csv(index=False))
    shown = cells(tae_evaluation.classes(evaluation))
    assert list(shown["class"]) == [f"Class{i:02d}" for i in (*range(6), *range(14, 20))]
    assert shown["PSNR (dB)"][0] == "20.00 ± 0.5"
