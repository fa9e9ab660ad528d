"""PSNR and SSIM of clips, and the interval of their mean, against formulas written out here."""

import itertools
import json
import math
from typing import ClassVar

import mindspore as ms
import numpy as np
import pandas as pd
import pytest

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.data.clips import SHOWN_FPS, Clip, save_index
from moviegen.data.videos import BrokenVideo, probe
from moviegen.programs import evaluate_tae
from moviegen.programs.evaluate_tae import evaluate
from moviegen.runs import patience

RNG = np.random.default_rng(0)
CLIP = RNG.integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)


def noisy(clip, amount):
    return np.clip(clip.astype(int) + RNG.integers(-amount, amount + 1, clip.shape), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


@pytest.mark.parametrize("amount", [1, 10, 100])
def test_psnr_is_the_mean_over_frames(amount):
    other = noisy(CLIP, amount)
    assert evaluate_tae.scores(CLIP, other)[0] == pytest.approx(
        np.mean([psnr(a, b) for a, b in zip(CLIP, other, strict=True)])
    )


def test_psnr_of_one_level_everywhere():
    grey = np.full((2, 16, 16, 3), 100, np.uint8)
    assert evaluate_tae.scores(grey, grey + 1)[0] == pytest.approx(20 * math.log10(255))  # 48.13 dB
    assert evaluate_tae.scores(grey + 1, grey)[0] == pytest.approx(20 * math.log10(255))  # no wrap below zero


def test_frames_are_scored_one_by_one():
    # one frame off by 1, one by 10: the mean of two PSNRs, not the PSNR of the mean error
    grey = np.full((2, 16, 16, 3), 100, np.uint8)
    other = grey + np.array([1, 10], np.uint8)[:, None, None, None]
    assert evaluate_tae.scores(grey, other)[0] == pytest.approx(20 * math.log10(255) - 10)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_ssim_of_identical_clips_is_one():
    assert evaluate_tae.scores(CLIP, CLIP.copy())[1] == 1


def test_ssim_of_flat_clips_is_the_luminance_term():
    a, b = 100.0, 150.0
    c1 = (0.01 * 255) ** 2
    flat = [np.full((2, 16, 16, 3), value, np.uint8) for value in (a, b)]
    assert evaluate_tae.scores(*flat)[1] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_ssim_falls_with_noise():
    values = [evaluate_tae.scores(CLIP, noisy(CLIP, amount))[1] for amount in (1, 10, 50, 200)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99
    assert values[-1] < 0.6


def test_clips_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        evaluate_tae.scores(CLIP, CLIP[:2])


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_psnr_of_identical_clips_is_finite():
    assert math.isfinite(evaluate_tae.scores(CLIP, CLIP.copy())[0])


# --- the interval ---


def test_interval_by_its_formula():
    values = [20.0, 22.0, 27.0, 31.0]
    mean = sum(values) / 4
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    assert evaluate_tae.interval95(pd.Series(values)) == pytest.approx(1.96 * deviation / 2)


def test_interval_of_equal_values_is_zero():
    assert evaluate_tae.interval95(pd.Series([5.0, 5.0, 5.0])) == 0


def test_interval_of_one_value_is_unknown():
    assert evaluate_tae.interval95(pd.Series([5.0])) is None


def test_interval_covers_the_mean_nineteen_times_in_twenty():
    samples = np.random.default_rng(0).normal(30, 4, (2000, 50))
    covered = [abs(row.mean() - 30) <= evaluate_tae.interval95(pd.Series(row)) for row in samples]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


# --- the tables ---


def test_aggregate_is_mean_and_interval():
    table = pd.DataFrame({"psnr": [20.0, 22.0, 27.0, 31.0], "ssim": [0.5, 0.5, 0.5, 0.5]})
    found = evaluate_tae.aggregate(table)
    assert found["clips"] == 4
    assert (found["psnr"], found["ssim"]) == (25, 0.5)
    assert found["psnr_ci95"] == pytest.approx(1.96 * math.sqrt(74 / 3) / 2)  # squares 25 + 9 + 4 + 36
    assert found["ssim_ci95"] == 0


# --- the run, with networks that return what is known ---


class Shifted:
    """Stands for a TAE: reconstructs a clip with every value raised by as many grey levels as its weights say."""

    LEVELS: ClassVar = {"tae-image": 10, "tae-opl-off": 1, "tae-opl-on": 2, "tae-mixkit": 5}

    def __init__(self, config=None):
        self.levels = None

    def __call__(self, video):
        return ms.Tensor(video.asnumpy() + np.float32(2 * self.levels / 255))


def load_levels(tae, path):
    """In the place of `load_weights`."""
    tae.levels = tae.LEVELS[path.parent.name.rpartition("-")[0]]


def expected_psnr(levels):
    return 20 * math.log10(255 / levels)


def prepared(tmp_path, monkeypatch, overrides):
    """An evaluation of grey clips in two classes, whose upstream runs are done."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", {"tae.evaluation.size": [16, 16], **overrides})
    root = tmp_path / "smoke" / "data"
    clips = [
        Clip(root / f"v_{label}_g01_c{i:02d}.avi", label=label, group=1, frames=16, fps=25)
        for label, count in (("Grey", 3), ("Light", 2))
        for i in range(count)
    ]
    captioned = [Clip(root / f"{i}.mp4", caption="grey", label="mixkit", group=i, frames=16) for i in range(2)]
    for name in ("data", *evaluate_tae.MODELS):
        with runs.record(runs.find(params, name)) as upstream:
            if name == "data":
                save_index(upstream.folder / "ucf101_test.csv", clips, root)
                save_index(upstream.folder / "mixkit_val.csv", captioned, root)
    monkeypatch.setattr(evaluate_tae, "TAE", Shifted)
    monkeypatch.setattr(evaluate_tae, "load_weights", load_levels)
    monkeypatch.setattr(evaluate_tae, "Reconstruct", lambda network: network)

    def view(params, clip):
        if clip.path.stem == "v_Grey_g01_c01" and overrides.get("seed") == 7:
            raise BrokenVideo(clip.path, "half a file")
        return np.full((3, 16, 16, 16), 2 * (150 if clip.label == "Light" else 100) / 255 - 1, np.float32)

    monkeypatch.setattr(evaluate_tae, "view", view)
    return runs.find(params, "tae-evaluation")


@pytest.fixture
def run(tmp_path, monkeypatch):
    return prepared(tmp_path, monkeypatch, {"tae.evaluation.max_clips": 0})


def test_every_autoencoder_is_scored_on_both_data_sets(run):
    with runs.record(run):
        evaluate(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    for data_set, clips in (("ucf101", 5), ("mixkit", 2)):
        assert list(summary[data_set]) == list(evaluate_tae.MODELS)
        for model, found in summary[data_set].items():
            assert found["clips"] == clips
            assert found["psnr"] == pytest.approx(expected_psnr(Shifted.LEVELS[model]))
            assert found["psnr_ci95"] == pytest.approx(0, abs=1e-9)
    table = pd.read_csv(run.folder / "scores.csv")
    assert len(table) == 4 * (5 + 2)
    assert [line["clip"] for line in run.metrics()] == list(table["clip"])


def test_classes_are_scored_apart(run):
    evaluate(run)
    classes = pd.read_csv(run.folder / "classes.csv")
    own = classes[(classes["data_set"] == "ucf101") & (classes["model"] == "tae-opl-off")].set_index("label")
    assert dict(own["clips"]) == {"Grey": 3, "Light": 2}
    a, b, c1 = 150, 151, (0.01 * 255) ** 2
    assert own.loc["Light", "ssim"] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_worst_median_and_best_clip_of_each_data_set_are_kept(run, monkeypatch):
    order = {"v_Grey_g01_c01": 9, "v_Light_g01_c00": 1}  # how much worse than the others, which tie

    def scores(original, restored):
        return 30 - next(worse), 0.5

    names = ["v_Grey_g01_c00", "v_Grey_g01_c01", "v_Grey_g01_c02", "v_Light_g01_c00", "v_Light_g01_c01", "0", "1"]
    worse = iter([order.get(name, 0) - 5 * (name == "v_Grey_g01_c02") for name in names] * 4)
    monkeypatch.setattr(evaluate_tae, "scores", scores)
    evaluate(run)
    videos = pd.read_csv(run.folder / "videos.csv")
    own = videos[videos["data_set"] == "ucf101"].set_index("kind")
    assert dict(own["clip"].str.removesuffix(".avi")) == {
        "worst": "v_Grey_g01_c01",
        "median": "v_Grey_g01_c00",
        "best": "v_Grey_g01_c02",
    }
    assert set(own["model"]) == {"tae-opl-off"}
    assert set(videos[videos["data_set"] == "mixkit"]["model"]) == {"tae-mixkit"}
    rates = {file: probe(run.folder / file).fps for file in videos["file"]}
    assert {file: rate for file, rate in rates.items() if "ucf101" in file} == {
        f"videos/ucf101-{kind}.mp4": 25 for kind in ("worst", "median", "best")
    }
    assert {rate for file, rate in rates.items() if "mixkit" in file} == {SHOWN_FPS}  # those clips state none


def test_the_same_clips_give_the_same_numbers_and_no_line_twice(run):
    evaluate(run)
    files = ("scores.csv", "classes.csv", "summary.json", "videos.csv", "metrics.jsonl", "videos/ucf101-worst.mp4")
    first = {name: (run.folder / name).read_bytes() for name in files}
    evaluate(run)
    assert {name: (run.folder / name).read_bytes() for name in files} == first


def test_a_damaged_clip_is_set_aside_and_counted(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"seed": 7})
    with pytest.warns(UserWarning, match="half a file"):
        evaluate(run)
    assert json.loads((run.folder / "summary.json").read_text())["ucf101"]["tae-opl-on"]["clips"] == 3
    assert "v_Grey_g01_c01.avi,half a file" in (run.folder / "quarantine.csv").read_text()


def test_summary_of_one_clip_is_json(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.evaluation.max_clips": 1})
    evaluate(run)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((run.folder / "summary.json").read_text(), parse_constant=refuse)
    assert summary["ucf101"]["tae-mixkit"]["clips"] == 1


def test_more_clips_than_one_wants_to_wait_for_are_refused_early(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"data.patience_hours": 0.5})
    looks = itertools.count(step=120)  # a clip takes two minutes
    monkeypatch.setattr(patience, "monotonic", lambda: next(looks))
    with pytest.raises(ConfigError, match=r"evaluating takes 0\.[67] hours more.*tae\.evaluation\.max_clips to 2 "):
        evaluate(run)


def test_a_trained_autoencoder_is_scored_alone(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.tae_checkpoint": "models/tae.safetensors"})
    evaluate(run)
    assert list(json.loads((run.folder / "summary.json").read_text())["ucf101"]) == ["tae-mixkit"]
