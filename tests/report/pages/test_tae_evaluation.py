import re

import numpy as np
import pandas as pd
import pytest

from moviegen import config, runs
from moviegen.data import videos
from moviegen.report.pages import tae_evaluation
from moviegen.report.results import DamagedFile
from moviegen.runs import files
from moviegen.runs.arrays import save_npz
from tests.report.making import cells, finished, words

MEASURED = {"clips": 12, "sources": 5, "identical": 0, "psnr": 24.512, "psnr_ci95": 1.31, "ssim": 0.78,
            "ssim_ci95": None, "lpips": 0.4567, "lpips_ci95": 0.0213}  # fmt: skip


@pytest.mark.parametrize(
    "show",
    [
        lambda params: tae_evaluation.scores(params, None, {}),
        lambda params: tae_evaluation.mixkit_scores(params, None),
        lambda params: tae_evaluation.classes(None),
        lambda params: tae_evaluation.reconstructions(None, "ucf101"),
        lambda params: tae_evaluation.seams(None),
        lambda params: tae_evaluation.wipes(None, "ucf101"),
        lambda params: tae_evaluation.wipes(finished(params, "tae-evaluation"), "ucf101"),
    ],
)
def test_without_a_run_the_page_says_so(params, show):
    assert any(words in show(params).data for words in ("not run here", "not run yet: open 04_tae_evaluation.ipynb"))


def test_scores_of_every_autoencoder_stand_beside_the_published_ones(params):
    evaluation, trained = finished(params, "tae-evaluation"), finished(params, "tae-opl-on")
    files.write_json(evaluation.folder / "summary.json", {"ucf101": {"tae-opl-on": MEASURED}})
    writer = runs.MetricsWriter(trained.metrics_path)
    for step in range(1, 13):
        writer.write(kind="train", step=step, loss=2.0, reconstruction=step / 100, outlier=0.25, seconds=0.125 * step)
    rows = cells(tae_evaluation.scores(params, evaluation, {"tae-opl-on": trained})).set_index("")
    assert list(rows["PSNR (dB)"])[:2] == ["31.35", "31.17"]
    assert rows.loc["here, OPL on", "PSNR (dB)"] == "24.51 ± 1.3"
    assert (rows.loc["here, OPL on", "clips"], rows.loc["here, OPL on", "source videos"]) == ("12", "5")
    assert rows.loc["here, OPL on", "SSIM"] == "0.780"
    assert rows.loc["here, OPL on", "LPIPS"] == "0.457 ± 0.021"
    assert list(rows["LPIPS"])[:2] == ["-", "-"]  # the original report has none
    assert float(rows.loc["here, OPL on", "s/step"]) == pytest.approx(
        0.125 * 7.5, abs=1e-3
    )  # the median of steps 3 to 12
    assert rows.loc["here, OPL off", "PSNR (dB)"] == "not recorded"
    assert not any("minus" in title for title in rows.index)  # without both there is no difference


def test_models_are_compared_clip_by_clip(params):
    evaluation = finished(params, "tae-evaluation")
    minus = {"model": "tae-opl-off", "clips": 12, "sources": 5, "psnr": -0.1234, "psnr_ci95": 0.0512, "ssim": 0.00321,
             "ssim_ci95": None, "lpips": -0.0125, "lpips_ci95": 0.5}  # fmt: skip
    compared = {"tae-opl-off": MEASURED, "tae-opl-on": MEASURED | {"minus": minus}}
    compared["tae-mixkit"] = MEASURED | {"minus": minus | {"psnr": 1.51}}
    files.write_json(evaluation.folder / "summary.json", {"ucf101": compared, "mixkit": compared})
    rows = cells(tae_evaluation.scores(params, evaluation, {})).set_index("")
    row = rows.loc["here, OPL on minus off, clip by clip"]
    assert list(row[["clips", "source videos"]]) == ["12", "5"]
    assert list(row[["PSNR (dB)", "SSIM", "LPIPS"]]) == ["-0.12 ± 0.051", "+0.0032", "-0.013 ± 0.5"]
    rows = cells(tae_evaluation.mixkit_scores(params, evaluation)).set_index("")
    assert rows.loc["here, after minus before, clip by clip", "PSNR (dB)"] == "+1.5 ± 0.051"
    assert "nan" not in " ".join(rows.to_numpy().ravel())


def test_where_the_perceptual_distance_was_not_measured_its_column_says_so(params):
    evaluation, none = finished(params, "tae-evaluation"), {"lpips": None, "lpips_ci95": None}
    minus = {"model": "tae-opl-off"} | MEASURED | none
    found = {"tae-opl-off": MEASURED | none, "tae-opl-on": MEASURED | none | {"minus": minus}}
    files.write_json(evaluation.folder / "summary.json", {"ucf101": found})
    rows = cells(tae_evaluation.scores(params, evaluation, {})).set_index("")
    for title in ("here, OPL off", "here, OPL on", "here, OPL on minus off, clip by clip"):
        assert rows.loc[title, "LPIPS"] == "-"
    assert rows.loc["here, inflated only", "LPIPS"] == "not recorded"


@pytest.mark.parametrize(("lpips", "words_of_it"), [(0.25, ", LPIPS 0.250"), ("", "")])
def test_reconstructions_are_shown_with_their_scores(params, lpips, words_of_it):
    evaluation = finished(params, "tae-evaluation")
    row = {"file": "videos/a.mp4", "kind": "worst", "data_set": "ucf101", "label": "Walk", "model": "tae-opl-off",
           "psnr": 20.0, "ssim": 0.5, "lpips": lpips}  # fmt: skip
    files.write_csv(evaluation.folder / "videos.csv", row, [row.values()])
    shown = tae_evaluation.reconstructions(evaluation, "ucf101").data
    assert f"<figcaption>worst: Walk, tae-opl-off, PSNR 20.00 dB, SSIM 0.500{words_of_it}</figcaption>" in shown


def test_halves_of_the_kept_videos_are_wiped(params):
    evaluation = finished(params, "tae-evaluation")
    pair = np.zeros((16, 32, 64, 3), np.uint8)
    pair[:, :, 32:] = 40
    videos.write_video(evaluation.folder / "a.mp4", pair, 12)
    row = {"file": "a.mp4", "kind": "worst", "data_set": "ucf101", "label": "Walk", "model": "tae-opl-off"}
    files.write_csv(evaluation.folder / "videos.csv", row, [row.values()])
    shown = tae_evaluation.wipes(evaluation, "ucf101")
    assert shown.data.count('<figure class="wipe">') == 1 and shown.data.count("<script>") == 1
    scale = int(re.search(r"brightest from (\d+) of 255", words(shown))[1])
    assert 36 <= scale <= 44
    assert "not run here" in tae_evaluation.wipes(evaluation, "mixkit").data


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tae.evaluation.max_clips": 7}, "at most 7 clips of each data set, 16 frames of 128x128 pixels"),
        ({"tae.evaluation.max_clips": 0, "tae.evaluation.lpips_interval": 1}, "all held-out clips"),
        ({"tae.evaluation.lpips_interval": 1}, "LPIPS is of every frame."),
        ({"tae.loss.lpips_checkpoint": ""}, "LPIPS is not measured"),
        ({"tae.tiling.frames": 24}, "a tile is 24 frames long and as wide and high as the clip"),
        ({"tae.tiling.overlap_frames": 8}, "have 8 frames in common"),
    ],
)
def test_the_rule_is_written_from_the_parameters(params, given, said):
    assert said in words(tae_evaluation.rules(config.parse(params.model_dump(), given)))


@pytest.mark.parametrize("show", [tae_evaluation.mixkit_scores, lambda *run: tae_evaluation.scores(*run, {})])
def test_identical_frames_are_counted_where_there_are_any(params, show):
    params = config.parse(params.model_dump(), {"tae.start_checkpoint": ""})
    evaluation = finished(params, "tae-evaluation")
    for identical in (0, 3):
        found = {"tae-opl-off": MEASURED, "tae-mixkit": MEASURED | {"identical": identical}}
        files.write_json(evaluation.folder / "summary.json", {"ucf101": found, "mixkit": found})
        page = show(params, evaluation)
        rows = cells(page).set_index("")
        assert ("58.9 dB" in page.data) == ("identical frames" in rows.columns) == bool(identical)
    assert rows.loc["here, OPL off, then fine-tuned on mixkit", "identical frames"] == "3"
    assert rows.loc["here, OPL off", "identical frames"] == "0"


def test_fine_tuning_stands_beside_what_it_started_from(params):
    started = config.parse(params.model_dump(), {"tae.start_checkpoint": "some.safetensors"})
    evaluation = finished(params, "tae-evaluation")
    found = {"tae-opl-off": MEASURED, "start": MEASURED | {"psnr": 24.0}, "tae-mixkit": MEASURED | {"psnr": 25.0}}
    files.write_json(evaluation.folder / "summary.json", {"ucf101": found, "mixkit": found})
    assert list(cells(tae_evaluation.mixkit_scores(started, evaluation))[""]) == [
        "came with the repository", "here, that one, then fine-tuned on mixkit",
    ]  # fmt: skip
    assert "came with the repository" in set(cells(tae_evaluation.scores(started, evaluation, {}))[""])
    without = config.parse(params.model_dump(), {"tae.start_checkpoint": ""})
    assert list(cells(tae_evaluation.mixkit_scores(without, evaluation))[""]) == [
        "here, OPL off", "here, OPL off, then fine-tuned on mixkit",
    ]  # fmt: skip


def test_positions_that_stand_out_are_counted_and_drawn_apart(params):
    evaluation, radius = finished(params, "tae-evaluation"), params.tae.loss.outlier_radius
    off, on = np.full((2, 4, 4), 0.5), np.full((2, 4, 4), radius)
    off[1, 0, 0], off[1, 2, 3], off[0, 1, 1] = 2 * radius, 4 * radius, 1.01 * radius
    save_npz(evaluation.folder / "outliers/00.npz", frame=np.full((32, 32, 3), 90, np.uint8), off=off, on=on)
    files.write_csv(
        evaluation.folder / "outliers.csv", ("file", "label", "clip"), [("outliers/00.npz", "Walk", "a.avi")]
    )
    shown = tae_evaluation.outliers(evaluation)
    assert f"OPL off: 3 of 32 (9.4 %), at most {4 * radius:.2f}" in shown.data
    assert f"OPL on: 0 of 32 (0.0 %), at most {radius:.2f}" in shown.data  # at the radius nothing is penalised
    assert f"beyond r = {radius:g}." in shown.data
    drawn = tae_evaluation.outlier_map(off[1], radius, 4 * radius)
    assert tuple(drawn[2, 3]) == (240, 228, 66)
    is_grey = (drawn == drawn[..., :1]).all(-1)
    assert "beyond, up to" in shown.data
    save_npz(evaluation.folder / "outliers/00.npz", frame=np.full((32, 32, 3), 90, np.uint8), off=on, on=on)
    assert "beyond, up to" not in tae_evaluation.outliers(evaluation).data
    (evaluation.folder / "outliers/00.npz").write_bytes(b"PK")
    with pytest.raises(DamagedFile, match=r"00\.npz is damaged"):
        tae_evaluation.outliers(evaluation)
    files.write_csv(evaluation.folder / "outliers.csv", ("file", "label", "clip"), [])
    assert "not run here" in tae_evaluation.outliers(evaluation).data
    assert not is_grey[0, 0] and not is_grey[2, 3] and is_grey.sum() == 14
    assert "not run here" in tae_evaluation.outliers(finished(params, "sample")).data


def test_tiles_of_each_size_stand_beside_the_whole_frame(params):
    evaluation = finished(params, "tae-evaluation")
    header = ("height", "width", "overlap", "tiles", "clips", "whole", "original")
    rows = [(64, 96, 0, 1, 3, "", 24.5), (32, 48, 0, 4, 3, 33.25, 24.0), (32, 48, 8, 9, 3, 36.5, 24.25)]
    files.write_csv(evaluation.folder / "tiles.csv", header, rows)
    shown = cells(tae_evaluation.seams(evaluation))
    assert list(shown["tile (HxW)"]) == ["64x96, the whole frame", "32x48", "32x48"]
    assert list(shown["overlap (pixels)"]) == ["-", "0", "8"] and list(shown["tiles a frame"]) == ["1", "4", "9"]
    assert list(shown["PSNR against the whole (dB)"]) == ["-", "33.25", "36.50"]
    assert list(shown["PSNR against the original (dB)"]) == ["24.50", "24.00", "24.25"]


def test_the_table_says_over_what_its_intervals_are(params):
    page = words(tae_evaluation.mixkit_scores(params, finished(params, "tae-evaluation")))
    page = words(tae_evaluation.mixkit_scores(params, finished(params, "tae-evaluation")))
    assert "by Student&#x27;s t over source videos; a single video has none" in page


@pytest.mark.parametrize(("lpips", "cell"), [("", "-"), (0.25, "0.250")])
def test_worst_and_best_classes_are_shown(params, lpips, cell):
    evaluation = finished(params, "tae-evaluation")
    rows = [
        {"data_set": "ucf101", "label": f"Class{i:02d}", "model": model, "clips": 2, "sources": 2 - i % 2,
         "psnr": 20 + i, "psnr_ci95": "" if i % 2 else 0.5, "ssim": 0.5, "ssim_ci95": "",
         "lpips": lpips, "lpips_ci95": "", "identical": 0}
        for i in range(20) for model in ("tae-opl-off", "tae-mixkit")
    ]  # fmt: skip
    files.write_text(evaluation.folder / "classes.csv", pd.DataFrame(rows).to_csv(index=False))
    shown = cells(tae_evaluation.classes(evaluation))
    assert list(shown["class"]) == [f"Class{i:02d}" for i in (*range(6), *range(14, 20))]
    assert list(shown["PSNR (dB)"][:2]) == ["20.00 ± 0.5", "21.00"]  # the second is of one video
    assert list(shown["source videos"][:2]) == ["2", "1"]
    assert set(shown["LPIPS"]) == {cell}
