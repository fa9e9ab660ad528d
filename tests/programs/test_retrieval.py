"""Retrieval: shares of made-up distances and velocities whose result is known, and the program on a small model."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moviegen import __main__, config, runs
from moviegen.config import Bucket, ConfigError
from moviegen.data.clips import Clip
from moviegen.data.latents import load_latent
from moviegen.device.world import World
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import Sampler, euler
from moviegen.programs import retrieval
from tests import small_runs

CAPTIONS = [f"caption {index}" for index in range(8)]
PARAPHRASES = {caption: f"{caption}, in other words" for caption in CAPTIONS}
RNG = np.random.default_rng(0)


def nowhere(caption):
    """Of captions whose scenes nobody knows."""
    return frozenset()


def sampled(velocity, clips, noise=None):
    """What Euler's steps make of noise, compared with the clips of CAPTIONS."""
    noise = RNG.standard_normal(clips.shape, np.float32) if noise is None else noise
    latents = euler(noise, velocity, schedule.linear(4))
    return retrieval.summarise(retrieval.distances(latents, clips), CAPTIONS, CAPTIONS, nowhere)


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
    summary, _ = retrieval.summarise(1 - np.eye(4)[[0, 1, 2, 0]], CAPTIONS[:4], CAPTIONS[:4], nowhere)
    assert summary["share_nearest"] == 0.75
    low, high = summary["share_nearest_ci95"]
    # both ends solve |share - p| = 1.96 sqrt(p (1 - p) / 4)
    for end in (low, high):
        assert (0.75 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 4, rel=1e-5)
    assert 0 < low < 0.75 < high < 1
    assert summary["share_scene_ci95"] is None


def test_latents_that_are_no_numbers_are_no_hits(clips):
    with pytest.raises(ConfigError, match="not finite"):
        sampled(lambda x, t: np.full_like(x, np.nan), clips)


def test_ranks_count_the_clips_that_are_nearer_or_as_near():
    found = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 3.0]])
    own = np.array([[True, False, False], [False, False, True], [True, False, False]])
    assert list(retrieval.ranks(found, own)) == [1, 3, 2]  # the last: a tie is no hit


def test_any_clip_of_the_caption_counts():
    found = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    summary, rows = retrieval.summarise(found, ["a", "b"], ["a", "a", "b"], nowhere)
    assert rows == [(1, 1, True, None), (0, 3, False, None)]
    assert (summary["prompts"], summary["share_nearest"]) == (2, 0.5)
    assert summary["chance"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_clips_of_another_bucket_are_not_compared_with():
    found = np.array([[1.0, 2.0, np.inf], [2.0, 1.0, np.inf], [np.inf, np.inf, 9.0]])
    summary, rows = retrieval.summarise(found, ["a", "b", "c"], ["a", "b", "c"], nowhere)
    assert [row[:2] for row in rows] == [(0, 1), (1, 1), (2, 1)]
    assert summary["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


PHOTOGRAPHS = [
    "The camera pans to the left across a wall of narrow grey bricks.",
    "The camera zooms in steadily on a wall of narrow grey bricks.",
    "The camera drifts over a wall of narrow grey bricks. Then the view cuts to a bed of small grey stones.",
    "The camera zooms in steadily on a red cup of espresso on a wooden table.",
]


def test_clips_of_one_photograph_are_counted_beside():
    scenes = retrieval.scenes_of(config.load("smoke"))
    assert scenes(PHOTOGRAPHS[2]) == {"brick", "gravel"}
    found = 1 - np.eye(4)[[1, 2, 2, 0]]
    summary, rows = retrieval.summarise(found, PHOTOGRAPHS, PHOTOGRAPHS, scenes)
    assert [row[3] for row in rows] == [True, True, True, False]
    assert (summary["share_nearest"], summary["share_scene"]) == (0.25, 0.75)
    assert (summary["chance"], summary["chance_scene"]) == (1 / 4, (3 + 3 + 3 + 1) / 16)


def test_clips_of_one_scene_of_the_film_are_counted_beside(tmp_path):
    """Whatever their captions say: the table has the scene of each."""
    table = tmp_path / "shots.csv"
    table.write_text(
        "scene,action,start,end,split,caption,paraphrase\n"
        "meadow,Walk,0,9,train,a rabbit walks,a bunny goes\n"
        "meadow,Look,9,19,train,grass under a wall of narrow grey bricks,turf by bricks\n"
        "tree,Look,20,30,train,a bird,some bird\n"
    )
    scenes = retrieval.scenes_of(config.load("smoke", {"data.film": str(table)}))
    captions = ["a rabbit walks", "grass under a wall of narrow grey bricks", "a bird", *PHOTOGRAPHS[:1]]
    assert [scenes(caption) for caption in captions] == [{"meadow"}, {"meadow"}, {"tree"}, {"brick"}]
    assert scenes("a bunny goes") == frozenset()  # a question is asked for its caption's scene
    summary, rows = retrieval.summarise(1 - np.eye(4)[[1, 0, 0, 1]], captions, captions, scenes)
    assert [row[2:] for row in rows] == [(False, True), (False, True), (False, False), (False, False)]
    assert (summary["share_scene"], summary["chance_scene"]) == (0.5, (2 + 2 + 1 + 1) / 16)


def test_nobody_knows_the_scenes_of_other_data():
    scenes = retrieval.scenes_of(config.load("smoke"))
    summary, _ = retrieval.summarise(np.eye(2), ["a wall of narrow grey bricks", "b"], ["a", "b"], scenes)
    assert summary["share_scene"] is summary["chance_scene"] is None


# --- the questions ---


def made_up(captions, paraphrases=PARAPHRASES):
    """A clip of each caption."""
    return [
        Clip(Path(f"{caption}.mp4"), caption, "", 0, paraphrase=paraphrases.get(caption, "")) for caption in captions
    ]


def asked_of(buckets, most):
    """(kind, prompt, caption) of each question, bucket after bucket; they are numbered as they follow."""
    by_bucket = retrieval.questions_of(buckets, config.load("smoke", {"sample.retrieval.prompts": most}))
    assert list(by_bucket) == list(buckets)
    questions = [question for those in by_bucket.values() for question in those]
    assert [question.prompt.index for question in questions] == list(range(len(questions)))
    assert [question.prompt.seed for question in questions] == [42 + index for index in range(len(questions))]
    return {
        bucket: [(question.kind, question.prompt.caption, question.caption) for question in those]
        for bucket, those in by_bucket.items()
    }


def test_a_clip_is_asked_for_by_its_caption_and_by_its_paraphrase():
    asked = asked_of({Bucket(16, 32, 48): made_up(CAPTIONS[:2])}, 8)
    assert asked == {
        Bucket(16, 32, 48): [
            ("caption", "caption 0", "caption 0"), ("caption", "caption 1", "caption 1"),
            ("paraphrase", "caption 0, in other words", "caption 0"),
            ("paraphrase", "caption 1, in other words", "caption 1"),
        ]
    }  # fmt: skip


def test_a_clip_without_a_paraphrase_is_asked_for_by_its_caption_alone():
    clips = made_up(CAPTIONS[:3], {"caption 1": "another"})
    (asked,) = asked_of({Bucket(16, 32, 48): clips}, 8).values()
    assert [text for kind, text, _ in asked if kind == "caption"] == CAPTIONS[:3]
    assert [(text, caption) for kind, text, caption in asked if kind == "paraphrase"] == [("another", "caption 1")]


def test_of_each_kind_so_many_are_asked_evenly_spread_over_the_buckets():
    groups = {Bucket(16, 32, 48): made_up(CAPTIONS[:6]), Bucket(16, 48, 32): made_up(CAPTIONS[6:])}
    asked = asked_of(groups, 4)
    for kind in retrieval.KINDS:
        captions = [[caption for one, _, caption in those if one == kind] for those in asked.values()]
        assert captions == [["caption 0", "caption 2", "caption 4"], ["caption 6"]]


def test_what_two_clips_are_called_is_asked_once():
    (asked,) = asked_of({Bucket(16, 32, 48): made_up([*CAPTIONS[:2], *CAPTIONS[:2]])}, 8).values()
    assert [text for _, text, _ in asked] == [*CAPTIONS[:2], *(PARAPHRASES[caption] for caption in CAPTIONS[:2])]


@pytest.mark.parametrize("name", ("prompts", "batch_size", "steps"))
def test_impossible_parameters_are_refused(name):
    with pytest.raises(ConfigError, match=f"sample.retrieval.{name} = 0"):
        config.load("smoke", {f"sample.retrieval.{name}": 0})


# --- the program ---


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Parameters of a small report whose stage 3 is trained: training captions four to seven, a clip each."""
    return written_report(tmp_path, monkeypatch, {})


@pytest.fixture
def paraphrased(tmp_path, monkeypatch):
    """The same with paraphrases."""
    return written_report(tmp_path, monkeypatch, PARAPHRASES)


def written_report(outputs, monkeypatch, paraphrases):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(outputs))
    params = config.load("smoke", {"stages.3.dataset.size": [32, 48], "sample.retrieval.prompts": 3})
    small_runs.write_data(params, CAPTIONS, paraphrases)
    small_runs.write_text(params, [*CAPTIONS, *paraphrases.values()])
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
    assert list(rows["kind"]) == ["caption"] * 3
    assert list(rows["prompt"]) == CAPTIONS[4:7]
    assert set(rows["nearest"]) <= {f"{index}.mp4" for index in range(4, 8)}
    assert ((rows["rank"] == 1) == rows["same_caption"]).all()
    summary = json.loads((run.folder / "summary.json").read_text())
    assert set(summary) == {"clips", "buckets", "steps", "guidance", "caption"}  # no clip has a paraphrase
    assert (summary["clips"], summary["buckets"], summary["steps"]) == (4, ["16x32x48"], 2)
    assert summary["guidance"] == report.sample.retrieval.guidance
    assert (summary["caption"]["prompts"], summary["caption"]["chance"]) == (3, 0.25)
    assert summary["caption"]["share_nearest"] == rows["same_caption"].mean()
    assert run.metrics() == [{"kind": "step", "step": step, "steps": 2} for step in (1, 2)]


def test_program_asks_for_paraphrases_too(paraphrased):
    assert __main__.main(["retrieval", "--config", str(written(paraphrased, "retrieval"))]) == 0
    run = runs.find(paraphrased, "retrieval")
    rows = pd.read_csv(run.folder / "retrieval.csv")
    assert list(rows["index"]) == list(range(6))
    assert list(rows["kind"]) == ["caption"] * 3 + ["paraphrase"] * 3
    assert list(rows["prompt"]) == [*CAPTIONS[4:7], *(PARAPHRASES[caption] for caption in CAPTIONS[4:7])]
    summary = json.loads((run.folder / "summary.json").read_text())
    for kind, of_kind in rows.groupby("kind"):
        assert (summary[kind]["prompts"], summary[kind]["chance"]) == (3, 0.25)
        assert summary[kind]["share_nearest"] == of_kind["same_caption"].mean()
        assert summary[kind]["mean_rank"] == of_kind["rank"].mean()


@pytest.fixture
def knowing(monkeypatch):
    """A sampler that generates for each prompt the latent that a dict has of it, in any bucket."""
    known = {}

    class Knows:
        def __init__(self, dit, embed, guidance, size):
            """As the sampler."""

        def at(self, size):
            return self

        def __call__(self, prompts, times, on_step):
            return np.stack([known[prompt.caption] for prompt in prompts])

    monkeypatch.setattr(retrieval, "Sampler", Knows)
    return known


def test_a_paraphrase_is_to_be_nearest_to_its_caption_s_clip(paraphrased, knowing):
    """Captions get their clips' own latents; of the paraphrases two do, and the third gets another clip's."""
    run = runs.find(paraphrased, "retrieval")
    (files,) = retrieval.training_clips(run).values()
    means = {clip.caption: load_latent(path)[0] for clip, path in files.items()}
    knowing.update({caption: means[caption] for caption in CAPTIONS[4:7]})
    knowing.update({PARAPHRASES[f"caption {index}"]: means[f"caption {of}"] for index, of in ((4, 4), (5, 7), (6, 6))})
    assert __main__.main(["retrieval", "--config", str(written(paraphrased, "retrieval"))]) == 0
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["caption"]["share_nearest"] == 1.0
    assert summary["paraphrase"]["share_nearest"] == pytest.approx(2 / 3)
    rows = pd.read_csv(run.folder / "retrieval.csv")
    assert list(rows["nearest"]) == ["4.mp4", "5.mp4", "6.mp4", "4.mp4", "7.mp4", "6.mp4"]
    assert list(rows["same_caption"]) == [True, True, True, True, False, True]


def test_each_caption_is_compared_within_its_bucket(report, monkeypatch):
    """With latents that are their own clips' means every caption is found, and no sampler meets another's shape."""
    groups = {Bucket(16, 32, 48): CAPTIONS[4:6], Bucket(16, 48, 32): CAPTIONS[6:8]}
    clips = {bucket: {clip: Path(clip.caption) for clip in made_up(those, {})} for bucket, those in groups.items()}

    class Knows:
        def __init__(self, dit, embed, guidance, size):
            self.captions = groups[size]

        def at(self, size):
            return Knows(None, None, None, size)

        def __call__(self, prompts, times, on_step):
            assert {prompt.caption for prompt in prompts} <= set(self.captions)
            return np.stack([mean(prompt.caption) for prompt in prompts])

    def mean(caption):
        return np.float32([CAPTIONS.index(caption), 1.0])

    monkeypatch.setattr(retrieval, "Sampler", Knows)
    monkeypatch.setattr(retrieval, "load_latent", lambda path: (mean(path.name), None))
    questions, found = retrieval.compare(runs.find(report, "retrieval"), World(), clips)
    assert [question.caption for question in questions] == CAPTIONS[4:7]  # no more than sample.retrieval.prompts
    inf = np.inf
    np.testing.assert_allclose(found, [[0, 1, inf, inf], [1, 0, inf, inf], [inf, inf, 0, 1]])


def test_what_was_cut_goes_on_with_the_batches_that_are_missing(paraphrased, monkeypatch):
    """Killed in its second batch of three; the third and the second are made then, and all is as at once."""
    smaller = paraphrased.sample.retrieval.model_copy(update={"batch_size": 2})
    sample = paraphrased.sample.model_copy(update={"retrieval": smaller})
    params = paraphrased.model_copy(update={"sample": sample})
    path, run, asked = written(params, "retrieval"), runs.find(params, "retrieval"), []

    def recording(at):
        def call(self, prompts, *rest):
            asked.append([prompt.index for prompt in prompts])
            if len(asked) == at:
                raise ConfigError("cut")
            return Sampler.__call__(self, prompts, *rest)

        monkeypatch.setattr(retrieval, "Sampler", type("Recording", (Sampler,), {"__call__": call}))

    recording(at=2)
    assert __main__.main(["retrieval", "--config", str(path)]) == 2
    recording(at=0)
    assert __main__.main(["retrieval", "--config", str(path)]) == 0
    assert asked == [[0, 1], [2, 3], [2, 3], [4, 5]]
    resumed = (run.folder / "retrieval.csv").read_bytes()
    shutil.rmtree(run.folder / "distances")
    assert __main__.main(["retrieval", "--config", str(path)]) == 0
    assert len(asked) == 7 and (run.folder / "retrieval.csv").read_bytes() == resumed


def test_the_average_of_the_weights_is_used_where_there_is_one(report):
    def nearest(name):
        shutil.rmtree(runs.find(report, "retrieval").folder / "distances", ignore_errors=True)  # of other weights
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
