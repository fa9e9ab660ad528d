"""Retrieval: shares of made-up distances and velocities whose result is known, and the program on a small model."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moviegen import __main__, config, runs
from moviegen.config import Bucket, ConfigError
from moviegen.data.clips import Clip
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import euler
from moviegen.programs import retrieval
from tests import small_runs

CAPTIONS = [f"caption {index}" for index in range(8)]
RNG = np.random.default_rng(0)


def sampled(velocity, clips, noise=None):
    """What Euler's steps make of noise, compared with the clips of CAPTIONS."""
    noise = RNG.standard_normal(clips.shape, np.float32) if noise is None else noise
    latents = euler(noise, velocity, schedule.linear(4))
    return retrieval.summarise(retrieval.distances(latents, clips), CAPTIONS, CAPTIONS)


@pytest.fixture
def clips():
    return RNG.standard_normal((8, 2, 1, 3, 3), np.float32)


def test_the_right_velocity_finds_every_clip(clips):
    summary, rows = sampled(lambda x, t: (clips - x) / (1 - t), clips)
    assert summary["share_nearest"] == 1.0
    assert summary["mean_rank"] == 1.0
    assert rows == [(index, 1, True, None) for index in range(8)]


def test_a_velocity_that_ignores_the_caption_hits_by_chance(clips):
    target = RNG.standard_normal((1, 2, 1, 3, 3), np.float32)
    summary, _ = sampled(lambda x, t: (target - x) / (1 - t), clips)
    assert summary["share_nearest"] == summary["chance"] == 1 / 8


def test_a_velocity_to_the_wrong_clips_hits_none(clips):
    summary, rows = sampled(lambda x, t: (clips[::-1] - x) / (1 - t), clips)
    assert summary["share_nearest"] == 0.0
    assert [row[0] for row in rows] == list(range(8))[::-1]


def test_distances_are_euclidean():
    found = retrieval.distances(np.float32([[[0, 0]], [[3, 0]]]), [np.float32([[3, 4]]), np.float32([[0, 0]])])
    np.testing.assert_allclose(found, [[5, 0], [4, 3]])


def test_a_common_offset_of_channels_changes_no_distance(clips):
    offset, latents = np.float32([5, -3]).reshape(2, 1, 1, 1), clips[::-1]
    moved = retrieval.distances(latents - offset, clips - offset)
    np.testing.assert_allclose(moved, retrieval.distances(latents, clips), rtol=1e-5)


def test_shares_have_wilsons_interval():
    summary, _ = retrieval.summarise(1 - np.eye(4)[[0, 1, 2, 0]], CAPTIONS[:4], CAPTIONS[:4])
    assert summary["share_nearest"] == 0.75
    low, high = summary["share_nearest_ci95"]
    # both ends solve |share - p| = 1.96 sqrt(p (1 - p) / 4)
    for end in (low, high):
        assert (0.75 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 4, rel=1e-5)
    assert 0 < low < 0.75 < high < 1
    assert summary["share_photograph_ci95"] is None


def test_latents_that_are_no_numbers_are_no_hits(clips):
    with pytest.raises(ConfigError, match="not finite"):
        sampled(lambda x, t: np.full_like(x, np.nan), clips)


def test_ranks_count_the_clips_that_are_nearer_or_as_near():
    found = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 3.0]])
    own = np.array([[True, False, False], [False, False, True], [True, False, False]])
    assert list(retrieval.ranks(found, own)) == [1, 3, 2]  # the last: a tie is no hit


def test_any_clip_of_the_caption_counts():
    found = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    summary, rows = retrieval.summarise(found, ["a", "b"], ["a", "a", "b"])
    assert rows == [(1, 1, True, None), (0, 3, False, None)]
    assert (summary["prompts"], summary["clips"], summary["share_nearest"]) == (2, 3, 0.5)
    assert summary["chance"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_clips_of_another_bucket_are_not_compared_with():
    found = np.array([[1.0, 2.0, np.inf], [2.0, 1.0, np.inf], [np.inf, np.inf, 9.0]])
    summary, rows = retrieval.summarise(found, ["a", "b", "c"], ["a", "b", "c"])
    assert [row[:2] for row in rows] == [(0, 1), (1, 1), (2, 1)]
    assert summary["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_clips_of_one_photograph_are_counted_beside():
    captions = [
        "The camera pans to the left across a wall of narrow grey bricks.",
        "The camera zooms in steadily on a wall of narrow grey bricks.",
        "The camera drifts over a wall of narrow grey bricks. Then the view cuts to a bed of small grey stones.",
        "The camera zooms in steadily on a red cup of espresso on a wooden table.",
    ]
    assert retrieval.photographs(captions[2]) == {"brick", "gravel"}
    found = 1 - np.eye(4)[[1, 2, 2, 0]]
    summary, rows = retrieval.summarise(found, captions, captions)
    assert [row[3] for row in rows] == [True, True, True, False]
    assert (summary["share_nearest"], summary["share_photograph"]) == (0.25, 0.75)
    assert (summary["chance"], summary["chance_photograph"]) == (1 / 4, (3 + 3 + 3 + 1) / 16)


def test_nobody_knows_the_photographs_of_other_data():
    summary, _ = retrieval.summarise(np.eye(2), ["a wall of narrow grey bricks", "b"], ["a", "b"])
    assert summary["share_photograph"] is summary["chance_photograph"] is None


@pytest.mark.parametrize("name", ("prompts", "batch_size", "steps"))
def test_impossible_parameters_are_refused(name):
    with pytest.raises(ConfigError, match=f"sample.retrieval.{name} = 0"):
        config.load("smoke", {f"sample.retrieval.{name}": 0})


# --- the program ---


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Parameters of a small report whose stage 3 is trained: training captions four to seven, a clip each."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", {"stages.3.dataset.size": [32, 48], "sample.retrieval.prompts": 3})
    small_runs.write_data(params, CAPTIONS)
    small_runs.write_text(params, CAPTIONS)
    small_runs.write_tae(params)
    small_runs.write_dit(params, 3)
    small_runs.write_latents(params)
    return params


def written(params, name):
    run = runs.find(params, name)
    run.write_params()
    return run.params_path


def test_program_compares_training_captions_with_training_clips(report):
    assert __main__.main(["retrieval", "--config", str(written(report, "retrieval"))]) == 0
    run = runs.find(report, "retrieval")
    assert run.complete
    rows = pd.read_csv(run.folder / "retrieval.csv")
    assert tuple(rows.columns) == retrieval.HEADER
    assert list(rows["caption"]) == CAPTIONS[4:7]
    assert set(rows["nearest"]) <= {f"{index}.mp4" for index in range(4, 8)}
    assert ((rows["rank"] == 1) == rows["same_caption"]).all()
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (summary["prompts"], summary["clips"], summary["chance"]) == (3, 4, 0.25)
    assert summary["share_nearest"] == rows["same_caption"].mean()
    assert (summary["buckets"], summary["steps"]) == (["16x32x48"], 2)
    assert run.metrics() == [{"kind": "prompts", "step": 3, "steps": 3}]


def test_each_caption_is_compared_within_its_bucket(report, monkeypatch):
    """With latents that are their own clips' means every caption is found, and no sampler meets another's shape."""
    groups = {Bucket(16, 32, 48): CAPTIONS[4:6], Bucket(16, 48, 32): CAPTIONS[6:8]}
    clips = {
        bucket: {Clip(Path(f"{caption}.mp4"), caption, label="", group=0): Path(caption) for caption in captions}
        for bucket, captions in groups.items()
    }

    class Knows:
        def __init__(self, dit, embed, guidance, size):
            self.captions = groups[size]

        def at(self, size):
            return Knows(None, None, None, size)

        def __call__(self, prompts, times):
            assert {prompt.caption for prompt in prompts} <= set(self.captions)
            return np.stack([mean(prompt.caption) for prompt in prompts])

    def mean(caption):
        return np.float32([CAPTIONS.index(caption), 1.0])

    monkeypatch.setattr(retrieval, "Sampler", Knows)
    monkeypatch.setattr(retrieval, "load_latent", lambda path: (mean(path.name), None))
    captions, found = retrieval.compare(runs.find(report, "retrieval"), clips)
    assert captions == CAPTIONS[4:7]  # no more than sample.retrieval.prompts
    inf = np.inf
    np.testing.assert_allclose(found, [[0, 1, inf, inf], [1, 0, inf, inf], [inf, inf, 0, 1]])


def test_the_average_of_the_weights_is_used_where_there_is_one(report):
    def nearest(name):
        assert __main__.main(["retrieval", "--config", str(written(report, "retrieval"))]) == 0
        return (runs.find(report, "retrieval").folder / name).read_bytes()

    before, stage = nearest("retrieval.csv"), runs.find(report, "stage3").folder
    other = small_runs.random_dit(report.dit_config(3), seed=9)
    save_dit(stage / "dit_ema.safetensors", other)
    with_average = nearest("retrieval.csv")
    (stage / "dit_ema.safetensors").rename(stage / "dit.safetensors")
    assert with_average == nearest("retrieval.csv")
    assert before != with_average


def test_without_stage_3_the_command_is_named(report, capsys):
    (runs.find(report, "stage3").folder / "manifest.json").unlink()
    assert __main__.main(["retrieval", "--config", str(written(report, "retrieval"))]) == 2
    error = capsys.readouterr().err
    assert re.search(r"run `msrun .*--worker_num=2 .*python -m moviegen train --stage 3 --config", error)
