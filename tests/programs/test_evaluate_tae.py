"""Scores of clips, their means and intervals, and the run, with networks that return what is known."""

import itertools
import json
import math
from concurrent.futures import Future
from contextlib import contextmanager
from typing import ClassVar

import mindspore as ms
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moviegen import config, runs
from moviegen.config import ConfigError, TAEConfig, Tiling
from moviegen.data.clips import SHOWN_FPS, Clip, save_index
from moviegen.data.videos import BrokenVideo, probe
from moviegen.device.world import World
from moviegen.programs import evaluate_tae
from moviegen.runs import patience
from moviegen.tae.model import TAE, Reconstruct

# --- the tables ---


def test_clips_of_one_video_count_as_one_for_the_interval():
    """Groups of one number in two classes are two videos."""
    table = pd.DataFrame(
        {
            "data_set": "ucf101", "label": ["A", "A", "A", "A", "B", "B"], "group": [1, 1, 2, 2, 1, 1],
            "psnr": [20.0, 24.0, 22.0, 22.5, 30.0, 27.0], "ssim": 0.5, "lpips": [0.25, 0.25, 0.5, 0.5, 0.75, 0.75],
            "identical": [0, 3, 0, 0, 1, 0],
        }
    )  # fmt: skip
    found = evaluate_tae.aggregate(table)
    videos = [22.0, 22.25, 28.5]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(videos), scale=stats.sem(videos))
    assert (found["clips"], found["sources"], found["identical"]) == (6, 3, 4)
    assert (found["psnr"] - found["psnr_ci95"], found["psnr"] + found["psnr_ci95"]) == pytest.approx((low, high))
    assert (found["ssim"], found["ssim_ci95"]) == (0.5, 0)
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([0.25, 0.5, 0.75]))
    assert (found["lpips"] - found["lpips_ci95"], found["lpips"] + found["lpips_ci95"]) == pytest.approx((low, high))


def test_clips_of_a_single_video_have_no_interval():
    table = pd.DataFrame(
        {"data_set": "ucf101", "label": "A", "group": 1, "psnr": [20.0, 22.0], "ssim": 0.5, "lpips": 0.25,
         "identical": 0}
    )  # fmt: skip
    found = evaluate_tae.aggregate(table)
    assert (found["sources"], found["psnr"], found["ssim"], found["lpips"]) == (1, 21, 0.5, 0.25)
    assert found["psnr_ci95"] is found["ssim_ci95"] is found["lpips_ci95"] is None


def test_a_measure_that_was_not_taken_has_neither_mean_nor_interval():
    clips = {"data_set": "ucf101", "label": "A", "group": [1, 2], "clip": ["1.avi", "2.avi"], "identical": 0}
    off = pd.DataFrame(clips | {"model": "tae-opl-off", "psnr": [20.0, 22.0], "ssim": 0.5, "lpips": None})
    found = evaluate_tae.aggregate(off)
    assert found["lpips"] is found["lpips_ci95"] is None
    assert (found["psnr"], found["ssim"]) == (21, 0.5)
    on = off.assign(model="tae-opl-on", psnr=[21.0, 23.0])
    found = evaluate_tae.difference(pd.concat([off, on]), "tae-opl-on", "tae-opl-off")
    assert found["lpips"] is found["lpips_ci95"] is None
    assert (found["psnr"], found["psnr_ci95"]) == (1, 0)


def test_a_difference_is_taken_clip_by_clip():
    """Clips differ by tens of decibels, the two models by tenths, whatever the order of their rows."""
    rng = np.random.default_rng(0)
    level, gain = rng.uniform(10, 50, 12), rng.normal(0.2, 0.05, 12)
    clips = {"data_set": "ucf101", "label": "A", "group": range(12), "clip": [f"{i}.avi" for i in range(12)]}
    off = pd.DataFrame(clips | {"model": "tae-opl-off", "psnr": level, "ssim": 0.5, "lpips": 0.5})
    on = pd.DataFrame(clips | {"model": "tae-opl-on", "psnr": level + gain, "ssim": 0.25, "lpips": 0.625})[::-1]
    found = evaluate_tae.difference(pd.concat([off, on]), "tae-opl-on", "tae-opl-off")
    low, high = stats.t.interval(0.95, 11, loc=gain.mean(), scale=stats.sem(gain))
    assert found["model"] == "tae-opl-off"
    assert (found["clips"], found["sources"]) == (12, 12)
    assert (found["psnr"] - found["psnr_ci95"], found["psnr"] + found["psnr_ci95"]) == pytest.approx((low, high))
    assert (found["ssim"], found["ssim_ci95"]) == (-0.25, 0)
    assert (found["lpips"], found["lpips_ci95"]) == (0.125, 0)


# --- the run ---


class Shifted:
    """Stands for a TAE: reconstructs a clip with every value raised by as many grey levels as its weights say."""

    LEVELS: ClassVar = {"tae-image": 10, "tae-opl-off": 1, "tae-opl-on": 2, "tae-mixkit": 5}

    def __init__(self, config=None):
        self.levels = ms.Parameter(ms.Tensor(0.0, ms.float32), name="levels")

    def parameters_and_names(self):
        return [("levels", self.levels)]

    def __call__(self, video):
        return ms.Tensor(video.asnumpy() + np.float32(2 * self.levels.asnumpy() / 255))


class Darker:
    """Stands for a reconstruction in tiles: as many grey levels below the whole one as a frame has tiles."""

    def __init__(self, network):
        self.network = network

    def __call__(self, video, tiling):
        whole = evaluate_tae.restore(self.network, video)
        return whole - np.uint8(tiling.tiles(*video.shape[2:]))


class Standing:
    """Stands for an encoder: latents of four positions, of which one stands out by as much as the weights say."""

    def __init__(self, network):
        self.network = network

    def __call__(self, video):
        positions = [float(self.network.levels.asnumpy()), 1, 0, 0]
        return ms.Tensor(np.float32(positions).reshape(1, 1, 1, 2, 2)), None


TRAINED = [name for name in evaluate_tae.MODELS if name != evaluate_tae.START]


def load_levels(tae, path):
    """In the place of `load_weights`."""
    tae.levels.set_data(ms.Tensor(tae.LEVELS[path.parent.name.rpartition("-")[0]], ms.float32))


@contextmanager
def scoring_here():
    """In the place of worker processes."""

    def scored(original, restored):
        future = Future()
        future.set_result(evaluate_tae.score(original, restored))
        return future

    yield scored


def evaluate(run):
    evaluate_tae.evaluate(run, World())


def expected_psnr(levels):
    return 20 * math.log10(255 / levels)


def prepared(tmp_path, monkeypatch, overrides):
    """An evaluation of grey clips in two classes, whose upstream runs are done."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", {"tae.evaluation.size": [16, 16], **overrides})
    root = tmp_path / "smoke" / "data"
    clips = [
        Clip(root / label / f"v_{label}_g01_c{i:02d}.avi", label=label, group=1, frames=16, fps=25)
        for label, count in (("Grey", 3), ("Light", 2))
        for i in range(count)
    ]
    captioned = [
        Clip(root / f"{i}.mp4", caption, label="mixkit", group=i, frames=16)
        for i in range(2)
        for caption in ("grey", "all grey")
    ]
    for name in ("data", *TRAINED):
        with runs.record(runs.find(params, name)) as upstream:
            if name == "data":
                save_index(upstream.folder / "ucf101_test.csv", clips, root)
                save_index(upstream.folder / "mixkit_val.csv", captioned, root)
    monkeypatch.setattr(evaluate_tae, "TAE", Shifted)
    monkeypatch.setattr(evaluate_tae, "load_weights", load_levels)
    monkeypatch.setattr(evaluate_tae, "Reconstruct", lambda network: network)
    monkeypatch.setattr(evaluate_tae, "Tiled", Darker)
    monkeypatch.setattr(evaluate_tae, "Encode", Standing)
    monkeypatch.setattr(evaluate_tae, "scoring", scoring_here)

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
        assert list(summary[data_set]) == TRAINED
        for model, found in summary[data_set].items():
            assert (found["clips"], found["sources"], found["identical"]) == (clips, 2, 0)
            assert found["psnr"] == pytest.approx(expected_psnr(Shifted.LEVELS[model]))
            assert found["psnr_ci95"] == pytest.approx(0, abs=1e-9)
    for model, levels in (("tae-opl-on", 2), ("tae-mixkit", 5)):
        found = summary["ucf101"][model]["minus"]
        assert (found["model"], found["clips"], found["sources"]) == ("tae-opl-off", 5, 2)
        assert found["psnr"] == pytest.approx(expected_psnr(levels) - expected_psnr(1))
        assert found["psnr_ci95"] == pytest.approx(0, abs=1e-9)
    assert [model for model, found in summary["mixkit"].items() if "minus" in found] == ["tae-opl-on", "tae-mixkit"]
    table = pd.read_csv(run.folder / "scores.csv")
    assert len(table) == 4 * (5 + 2)  # a file is scored once, however many captions it has
    assert [line["clip"] for line in run.metrics()] == list(table["clip"])


def levels_between(original, restored):
    """In the place of LPIPS: the mean difference in grey levels."""
    return float(np.abs(original.astype(int) - restored).mean())


def test_the_perceptual_distance_is_in_every_table(run, monkeypatch):
    monkeypatch.setattr(evaluate_tae, "frame_distance", lambda params: levels_between)
    evaluate(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    for models in summary.values():
        assert {model: found["lpips"] for model, found in models.items()} == Shifted.LEVELS
        assert {found["lpips_ci95"] for found in models.values()} == {0}
        minus = models["tae-mixkit"]["minus"]
        assert (minus["lpips"], minus["lpips_ci95"]) == (5 - 1, 0)
    for name in ("scores.csv", "classes.csv", "videos.csv"):
        table = pd.read_csv(run.folder / name)
        assert list(table["lpips"]) == list(table["model"].map(Shifted.LEVELS))
    assert pd.read_csv(run.folder / "classes.csv")["lpips_ci95"][0] == 0  # of mixkit's two videos


def test_without_its_weights_the_perceptual_distance_is_left_empty(run):
    evaluate(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    for found in (found for models in summary.values() for found in models.values()):
        for one in (found, found.get("minus", found)):
            assert one["lpips"] is one["lpips_ci95"] is None
    for name in ("scores.csv", "classes.csv", "videos.csv"):
        assert pd.read_csv(run.folder / name)["lpips"].isna().all()


def test_weights_of_the_perceptual_distance_that_are_not_there_are_named(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.loss.lpips_checkpoint": "models/vgg.safetensors"})
    with pytest.raises(ConfigError, match=r"tae\.loss\.lpips_checkpoint: there is no file .*models/vgg\.safetensors"):
        evaluate(run)


def test_tiles_are_scored_against_whole_frames_and_originals(run):
    evaluate(run)
    table = pd.read_csv(run.folder / "tiles.csv")
    assert list(table["tiles"]) == [1, 4] and list(table["overlap"]) == [0, 0]  # of 16x16 no other tiles are possible
    assert list(table["clips"]) == [2, 2]
    assert table["original"].tolist() == pytest.approx([expected_psnr(5), expected_psnr(1)])
    assert np.isnan(table["whole"][0]) and table["whole"][1] == pytest.approx(expected_psnr(4))


def test_outliers_of_a_few_clips_are_kept_of_both_models(run):
    evaluate(run)
    table = pd.read_csv(run.folder / "outliers.csv")
    assert list(table.columns) == ["file", "label", "clip"]
    assert set(table["label"]) == {"Grey", "Light"} and len(table) == evaluate_tae.OUTLIER_CLIPS
    for row in table.itertuples():
        with np.load(run.folder / row.file) as kept:
            assert kept["frame"].shape == (16, 16, 3) and set(kept["frame"].ravel()) == {
                {"G": 100, "L": 150}[row.label[0]]
            }
            # off: positions 1, 1, 0, 0 around 1/2; on: 2, 1, 0, 0 around 3/4, of variance 11/16
            np.testing.assert_allclose(kept["off"], np.ones((1, 2, 2)))
            wanted = np.array([[1.25, 0.25], [0.75, 0.75]]) / (11 / 16) ** 0.5
            np.testing.assert_allclose(kept["on"], wanted[None], rtol=1e-6)


def test_tiles_of_three_sizes_with_and_without_an_overlap_are_compared():
    found = [(tiling.size, tiling.overlap, tiling.frames) for tiling in evaluate_tae.tilings(13, (256, 128))]
    assert found == [((192, 96), 24, 16), ((128, 64), 0, 16), ((128, 64), 16, 16),
                     ((64, 32), 0, 16), ((64, 32), 8, 16)]  # fmt: skip


@pytest.mark.usefixtures("eager")
def test_one_tile_is_the_whole_and_more_are_not():
    small = TAEConfig(base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2)
    tae, video = TAE(small), np.random.default_rng(0).uniform(-1, 1, (3, 8, 24, 32)).astype(np.float32)
    whole, tiled = evaluate_tae.restore(Reconstruct(tae), video), evaluate_tae.Tiled(tae)
    one = tiled(video, Tiling(frames=8, overlap_frames=0, size=(24, 32), overlap=8))
    assert np.abs(one.astype(int) - whole).max() <= 1  # rounded
    cut = tiled(video, Tiling(frames=8, overlap_frames=0, size=(16, 24), overlap=8))
    assert cut.shape == whole.shape and (cut != whole).any()


def test_classes_are_scored_apart(run):
    evaluate(run)
    classes = pd.read_csv(run.folder / "classes.csv")
    own = classes[(classes["data_set"] == "ucf101") & (classes["model"] == "tae-opl-off")].set_index("label")
    assert dict(own["clips"]) == {"Grey": 3, "Light": 2}
    assert set(own["sources"]) == {1} and own["psnr_ci95"].isna().all()
    a, b, c1 = 150, 151, (0.01 * 255) ** 2
    assert own.loc["Light", "ssim"] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_worst_median_and_best_clip_of_each_data_set_are_kept(run, monkeypatch):
    order = {"v_Grey_g01_c01": 9, "v_Light_g01_c00": 1}  # how much worse than the others, which tie

    def score(original, restored):
        return {"psnr": 30 - next(worse), "ssim": 0.5, "lpips": None, "identical": 0}

    names = ["v_Grey_g01_c00", "v_Grey_g01_c01", "v_Grey_g01_c02", "v_Light_g01_c00", "v_Light_g01_c01", "0", "1"]
    worse = iter(4 * [order.get(name, 0) - 5 * (name == "v_Grey_g01_c02") for name in names])  # a model, all clips
    monkeypatch.setattr(evaluate_tae, "score", score)
    evaluate(run)
    videos = pd.read_csv(run.folder / "videos.csv")
    own = videos[videos["data_set"] == "ucf101"].set_index("kind")
    assert dict(own["clip"]) == {
        "worst": "Grey/v_Grey_g01_c01.avi",
        "median": "Grey/v_Grey_g01_c00.avi",
        "best": "Grey/v_Grey_g01_c02.avi",
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
    files = (
        "scores.csv",
        "classes.csv",
        "summary.json",
        "tiles.csv",
        "videos.csv",
        "metrics.jsonl",
        "videos/ucf101-worst.mp4",
    )
    first = {name: (run.folder / name).read_bytes() for name in files}
    evaluate(run)
    assert {name: (run.folder / name).read_bytes() for name in files} == first


def test_each_clip_is_decoded_once_for_all_models_and_not_again_where_a_run_was_cut(run, monkeypatch):
    decoded, view = [], evaluate_tae.view
    for beside in ("keep_examples", "score_tiles", "keep_outliers"):
        monkeypatch.setattr(evaluate_tae, beside, lambda *given: None)
    monkeypatch.setattr(evaluate_tae, "view", lambda params, clip: decoded.append(clip.path.stem) or view(params, clip))
    monkeypatch.setattr(evaluate_tae, "AT_ONCE", 2)
    evaluate(run)
    assert len(decoded) == len(set(decoded)) == 7
    files = ("scores.csv", "summary.json")
    first = {name: (run.folder / name).read_bytes() for name in files}
    for place in (1, 6):
        evaluate_tae.score_file(run, place).unlink()
    lost = [decoded[1], decoded[6]]
    decoded.clear()
    evaluate(run)
    assert decoded == lost
    assert {name: (run.folder / name).read_bytes() for name in files} == first


def test_ranks_take_clips_in_turn_and_their_rows_are_those_of_one(run, monkeypatch):
    monkeypatch.setattr(evaluate_tae, "barrier", lambda world: None)
    monkeypatch.setattr(evaluate_tae, "keep_examples", lambda *given: None)
    evaluate(run)
    whole = (run.folder / "scores.csv").read_bytes()
    clips = evaluate_tae.chosen_clips(run)
    for place in range(len(clips)):
        evaluate_tae.score_file(run, place).unlink()
    models = evaluate_tae.Models(run)
    for rank in (1, 0):
        evaluate_tae.score_share(run, World(rank, 2), models, clips, list(range(len(clips))))
        assert len(list((run.folder / "scores").iterdir())) == {1: 3, 0: 7}[rank]
    evaluate(run)
    assert (run.folder / "scores.csv").read_bytes() == whole


def test_worker_processes_score_what_this_one_scores():
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (3, 2, 16, 16, 3), dtype=np.uint8)
    with evaluate_tae.scoring() as scored:
        found = [scored(clips[0], other) for other in clips]
        assert [one.result() for one in found] == [evaluate_tae.score(clips[0], other) for other in clips]


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
    with pytest.raises(ConfigError, match=r"evaluating takes 0\.[67]\d* hours more.*tae\.evaluation\.max_clips to 2 "):
        evaluate(run)


def test_the_one_that_fine_tuning_started_from_is_scored_and_compared_with(tmp_path, monkeypatch):
    file = tmp_path / "start-0" / "tae.safetensors"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setitem(Shifted.LEVELS, "start", 3)
    run = prepared(tmp_path, monkeypatch, {"tae.start_checkpoint": str(file)})
    evaluate(run)
    found = json.loads((run.folder / "summary.json").read_text())["mixkit"]
    assert list(found) == list(evaluate_tae.MODELS)
    assert found["tae-mixkit"]["minus"]["model"] == "start"
    assert found["tae-mixkit"]["minus"]["psnr"] == pytest.approx(expected_psnr(5) - expected_psnr(3))
    assert found["tae-opl-on"]["minus"]["model"] == "tae-opl-off"


def test_a_trained_autoencoder_is_scored_alone(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.tae_checkpoint": "models/tae.safetensors"})
    evaluate(run)
    assert list(json.loads((run.folder / "summary.json").read_text())["ucf101"]) == ["tae-mixkit"]
    assert not (run.folder / "outliers.csv").exists()  # there are no two to compare


def test_files_of_one_name_in_two_classes_stay_two_clips(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.evaluation.max_clips": 0})
    root = tmp_path / "smoke" / "data"
    clips = [Clip(root / label / "1.avi", label=label, group=1, frames=16) for label in ("Grey", "Light")]
    save_index(run.upstream("data").folder / "ucf101_test.csv", clips, root)
    evaluate(run)
    table = pd.read_csv(run.folder / "scores.csv")
    assert set(table["clip"][table["data_set"] == "ucf101"]) == {"Grey/1.avi", "Light/1.avi"}
    found = json.loads((run.folder / "summary.json").read_text())["ucf101"]["tae-opl-on"]["minus"]
    assert (found["clips"], found["sources"]) == (2, 2)


def test_a_few_clips_are_spread_over_all_classes(tmp_path, monkeypatch):
    run = prepared(tmp_path, monkeypatch, {"tae.evaluation.max_clips": 3})
    evaluate(run)
    classes = pd.read_csv(run.folder / "classes.csv")
    assert set(classes["label"][classes["data_set"] == "ucf101"]) == {"Grey", "Light"}


def test_a_restored_clip_without_numbers_is_refused_and_not_scored_as_black(run, monkeypatch):
    monkeypatch.setattr(Shifted, "LEVELS", Shifted.LEVELS | {"tae-opl-on": math.nan})
    with pytest.raises(ConfigError, match=r"tae-opl-on, .*v_Grey_g01_c00.avi: .*not numbers: its weights"):
        evaluate(run)
    assert not (run.folder / "summary.json").exists()


def test_no_clip_to_score_is_an_error_that_names_the_list(run, monkeypatch):
    def broken(params, clip):
        raise BrokenVideo(clip.path, "half a file")

    monkeypatch.setattr(evaluate_tae, "view", broken)
    with pytest.warns(UserWarning, match="set aside"), pytest.raises(ConfigError, match=r"quarantine.csv says why"):
        evaluate(run)
