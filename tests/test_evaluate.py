"""PSNR and SSIM of clips, and the interval of their mean, against formulas written out here."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from moviegen import config, evaluate, runs
from moviegen.data.datasets import Clip, save_index

RNG = np.random.default_rng(0)
CLIP = RNG.integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)


def noisy(clip, amount):
    return np.clip(clip.astype(int) + RNG.integers(-amount, amount + 1, clip.shape), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


@pytest.mark.parametrize("amount", [1, 10, 100])
def test_psnr_is_the_mean_over_frames(amount):
    other = noisy(CLIP, amount)
    assert evaluate.scores(CLIP, other)[0] == pytest.approx(
        np.mean([psnr(a, b) for a, b in zip(CLIP, other, strict=True)])
    )


def test_psnr_of_one_level_everywhere():
    grey = np.full((2, 16, 16, 3), 100, np.uint8)
    assert evaluate.scores(grey, grey + 1)[0] == pytest.approx(20 * math.log10(255))  # 48.13 dB
    assert evaluate.scores(grey + 1, grey)[0] == pytest.approx(20 * math.log10(255))  # no wrap below zero


def test_frames_are_scored_one_by_one():
    # one frame off by 1, one by 10: the mean of two PSNRs, not the PSNR of the mean error
    grey = np.full((2, 16, 16, 3), 100, np.uint8)
    other = grey + np.array([1, 10], np.uint8)[:, None, None, None]
    assert evaluate.scores(grey, other)[0] == pytest.approx(20 * math.log10(255) - 10)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_ssim_of_identical_clips_is_one():
    assert evaluate.scores(CLIP, CLIP.copy())[1] == 1


def test_ssim_of_flat_clips_is_the_luminance_term():
    a, b = 100.0, 150.0
    c1 = (0.01 * 255) ** 2
    flat = [np.full((2, 16, 16, 3), value, np.uint8) for value in (a, b)]
    assert evaluate.scores(*flat)[1] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_ssim_falls_with_noise():
    values = [evaluate.scores(CLIP, noisy(CLIP, amount))[1] for amount in (1, 10, 50, 200)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99
    assert values[-1] < 0.6


def test_clips_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        evaluate.scores(CLIP, CLIP[:2])


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_psnr_of_identical_clips_is_finite():
    assert math.isfinite(evaluate.scores(CLIP, CLIP.copy())[0])


# --- the interval ---


def test_interval_by_its_formula():
    values = [20.0, 22.0, 27.0, 31.0]
    mean = sum(values) / 4
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    assert evaluate.interval95(pd.Series(values)) == pytest.approx(1.96 * deviation / 2)


def test_interval_of_equal_values_is_zero():
    assert evaluate.interval95(pd.Series([5.0, 5.0, 5.0])) == 0


def test_interval_of_one_value_is_unknown():
    assert evaluate.interval95(pd.Series([5.0])) is None


def test_interval_covers_the_mean_nineteen_times_in_twenty():
    samples = np.random.default_rng(0).normal(30, 4, (2000, 50))
    covered = [abs(row.mean() - 30) <= evaluate.interval95(pd.Series(row)) for row in samples]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


# --- the run, with networks that return what is known ---


class Shifted:
    """Reconstructs a clip with every value raised by `levels` grey levels."""

    def __init__(self, levels):
        self.levels = levels

    def __call__(self, video):
        import mindspore as ms

        return ms.Tensor(video.asnumpy() + np.float32(2 * self.levels / 255))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An evaluation of grey clips whose upstream runs are done and whose autoencoders shift by 10 and by 1 levels."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", {"tae.evaluation.max_clips": 3, "tae.evaluation.size": [16, 16]})
    root = tmp_path / "smoke" / "data"
    clips = [Clip(root / f"v_Grey_g01_c{i:02d}.avi", label="Grey", group=1, frames=16) for i in range(5)]
    for name in ("data", "tae-image", "tae-video"):
        with runs.record(runs.find(params, name)) as upstream:
            if name == "data":
                save_index(upstream.folder / "ucf101_test.csv", clips, root)
    monkeypatch.setattr(evaluate, "inflate", lambda path, config: Shifted(10))
    monkeypatch.setattr(evaluate, "load_tae", lambda path: Shifted(1))
    monkeypatch.setattr(evaluate, "Reconstruct", lambda network: network)
    grey = np.full((3, 16, 16, 16), 2 * 100 / 255 - 1, np.float32)
    monkeypatch.setattr(evaluate, "view", lambda params, clip: grey)
    return runs.find(params, "tae-evaluation")


def test_run_scores_before_and_after(run):
    with runs.record(run):
        evaluate.evaluate(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["clips"] == 3  # max_clips, of five
    assert summary["psnr_before"] == pytest.approx(20 * math.log10(255) - 20)
    assert summary["psnr_after"] == pytest.approx(20 * math.log10(255))
    assert summary["psnr_after_ci95"] == pytest.approx(0, abs=1e-9)
    table = pd.read_csv(run.folder / "scores.csv")
    assert list(table["clip"]) == [f"v_Grey_g01_c{i:02d}.avi" for i in range(3)]
    assert [line["clip"] for line in run.metrics()] == list(table["clip"])
    videos = pd.read_csv(run.folder / "videos.csv")
    assert list(videos["kind"]) == ["best", "median", "worst"]
    assert all((run.folder / file).stat().st_size for file in videos["file"])


def test_second_try_does_not_repeat_the_metrics(run):
    for _ in range(2):
        evaluate.evaluate(run)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]


def test_summary_of_one_clip_is_json(run):
    from dataclasses import replace

    settings = run.params.tae.evaluation.model_copy(update={"max_clips": 1})
    tae = run.params.tae.model_copy(update={"evaluation": settings})
    one = replace(run, params=run.params.model_copy(update={"tae": tae}))
    evaluate.evaluate(one)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((run.folder / "summary.json").read_text(), parse_constant=refuse)
