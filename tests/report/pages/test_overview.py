import re

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.data import videos
from moviegen.data.embeddings import caption_file
from moviegen.plan.verdict import stage_verdict
from moviegen.report.pages import overview
from moviegen.report.planned import published_card
from moviegen.runs import files
from tests.report.making import cells, coloured, finished, words


@pytest.mark.parametrize(
    "show",
    [
        lambda params: overview.summary(params, None, dict.fromkeys((1, 2, 3)), None),
        lambda params: overview.numbers(params, None, None, None, None),
        lambda params: overview.strip(params, "trained", {}, None, None),
        lambda params: overview.way(params, None, None),
    ],
)
def test_without_a_run_a_table_says_so(params, show):
    assert "not run yet: open 0" in show(params).data


def test_a_sample_without_such_a_caption_has_no_strip(params):
    said = overview.strip(params, "unseen", {}, finished(params, "sample"), None).data
    assert "not recorded" in said and "07_sampling.ipynb" in said


def test_support_is_evident_from_runs_or_from_the_plan_and_claims_stand_beside(params):
    rows = cells(overview.support(params, {1: finished(params, "stage1"), 2: None, 3: None})).astype(str)
    *published, own = rows.set_index("model").itertuples()
    size = "x".join(map(str, params.recipes[1].dataset.longest_clip))
    assert own[:2] == ("tiny", "this report, recipe tiny")
    assert own[2:4] == (f"verified here: {size}", "runs here: 16x48x80; not run yet: open 06_training.ipynb, stage 2")
    assert [row[0] for row in published] == ["1B", "5B", "30B"] * 2
    for claimed, counted in zip(published[:3], published[3:], strict=True):
        for stage in (1, 2, 3):
            _, verdict = stage_verdict(config.load(counted[0]), stage, published_card())
            assert counted[stage + 1].startswith("fits by plan" if verdict.fits else "does not fit")
        assert claimed[1].startswith("published: original report")
    assert published[2][2:] == ("supported: images", "accuracy verified: 256 frames at 256 px",
                                 "to do: 256 frames at 768 px")  # fmt: skip


def test_at_a_scale_of_cards_its_own_recipe_is_planned_and_stands_once():
    rows = cells(overview.support(config.load("5B", {"launch.max_device_memory": "9GB"}), dict.fromkeys((1, 2, 3))))
    assert list(rows["model"]) == ["1B", "5B", "30B", "1B", "30B", "5B"]
    assert rows["stage 3: higher resolution"][5].startswith("does not fit: 256x")


def test_summary_has_the_last_validation_loss_of_each_stage(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step, loss in ((4, 0.9), (8, 0.4321)):
        writer.write(kind="validation", step=step, steps=8, loss=loss)
    rows = cells(overview.summary(params, None, {1: None, 2: run, 3: None}, None)).set_index("result")["value"]
    assert rows["validation loss at the end of stage 2"] == "0.4321"
    assert rows["validation loss at the end of stage 1"] == "not run yet: open 06_training.ipynb, stage 1"
    assert rows["TAE reconstruction, LPIPS"] == "not run yet: open 04_tae_evaluation.ipynb"


def test_summary_says_not_run_here_where_it_takes_cards():
    rows = cells(overview.summary(config.load("5B"), None, dict.fromkeys((1, 2, 3)), None)).set_index("result")["value"]
    assert set(rows) == {"not run here"}


# --- one caption ---


def tiles(strip):
    """What stands beside each other, by its caption."""
    return re.findall("<figcaption>(.*?)</figcaption>", strip.data.partition('<p class="run-line">')[0])


def trained_stages(params, kind, caption):
    """Runs of stages 1 and 2 that sampled a caption of a kind before training and after it."""
    found = {stage: finished(params, f"stage{stage}") for stage in (1, 2)}
    for stage, run in found.items():
        rows = ["step,kind,prompt,seed,generated"]
        for step in (100, 0):
            file = run.folder / f"update-{step}.{'png' if stage == 1 else 'mp4'}"
            if stage == 1:
                videos.write_image(file, np.full((48, 80, 3), step, np.uint8))
            else:
                videos.write_video(file, np.full((16, 48, 80, 3), step, np.uint8), 12)
            rows.append(f"{step},{kind},{caption},7,{file.name}")
        (run.folder / "samples.csv").write_text("\n".join(rows) + "\n")
    return found


def test_a_caption_of_training_stands_beside_the_real_clip_and_what_was_made_of_it(params):
    sample = coloured(params)
    shown = overview.strip(params, "trained", {1: None, 2: None}, sample, None)
    assert tiles(shown) == ["the real clip", "stage 3, seed 43"]
    assert "a trained &lt;cat&gt;" in shown.data
    assert "Of stage 1 and stage 2 training kept no sample of this caption." in words(shown)
    shipped = finished(params, "shipped")
    (shipped.folder / "samples.csv").write_text((sample.folder / "samples.csv").read_text())
    shown = overview.strip(params, "trained", {}, sample, shipped)
    assert tiles(shown) == ["the real clip", "stage 3, seed 43", "shipped weights, seed 43"]
    assert all(f'href="provenance.html#{one.name}"' in shown.data for one in (sample, shipped))


def test_what_the_weights_of_earlier_stages_ended_with_stands_between(params):
    sample, stages = coloured(params), trained_stages(params, "unseen", "a unseen <cat>")
    shown = overview.strip(params, "unseen", stages, sample, None)
    assert tiles(shown) == ["the real clip", "stage 1, seed 7", "stage 2, seed 7", "stage 3, seed 42"]
    assert 'alt="stage 1, seed 7, sampled from: a unseen &lt;cat&gt;"' in shown.data
    assert "update-100.mp4" in shown.data and "update-0.mp4" not in shown.data
    assert all(run.name in shown.data for run in stages.values())
    assert "stage 1 in 16, stage 2 in 16 and stage 3 in 50 steps." in words(shown)
    other = overview.strip(params, "trained", stages, sample, None)  # of another kind of caption
    assert tiles(other) == ["the real clip", "stage 3, seed 43"]
    assert not any(run.name in other.data for run in stages.values())


def test_pictures_of_latents_that_say_nothing_of_colours_are_left_out(params):
    sample = coloured(params)
    assert cells(overview.way(params, None, sample))["here"][4].count("<img") == 1
    for path in (sample.folder / "latents").iterdir():
        np.savez(path, latent_mean=np.random.default_rng(7).standard_normal((16, 2, 18, 30)))
    assert "<img" not in cells(overview.way(params, None, sample))["here"][4]


def test_the_strip_says_which_notebook_makes_what_is_missing(params):
    assert "notebooks/07_sampling.ipynb" in words(overview.strip(params, "unseen", {}, None, None))


def test_one_caption_is_followed_with_the_numbers_of_its_run(params):
    sample, text = coloured(params), finished(params, "text")
    file = caption_file(text.folder, "ul2", "a trained <cat>")
    file.parent.mkdir()
    np.savez(file, mask=np.arange(40) < 5)
    files.write_json(
        sample.folder / "videos/01.json", {"seconds": {"sampling": [12.5, False], "decoding": [0.5, True]}}
    )
    said = dict(cells(overview.way(params, text, sample)).to_numpy())
    assert said["text"] == "“a trained &lt;cat&gt;”, 3 words"
    assert said["tokens"] == "UL2: 5 of 40 tokens, 384 numbers each"
    assert said["noise"] == "16 x 2 x 18 x 30 = 17,280 numbers of a normal distribution, seed 43"
    assert "asked 100 times about 270 visual tokens: 12.5 s, with compiling" in said["steps"]  # 50 steps, guided
    deviation = np.load(sample.folder / "latents/01.npz")["latent_mean"].std()
    assert f"standard deviation {deviation:.3f}" in said["latent"] and "<img" in said["latent"]
    assert "16 x 144 x 240 x 3 = 1,658,880 values, 96 for each number of the latent: 0.5 s<img" in said["clip"]
    assert "up to 40 tokens" in dict(cells(overview.way(params, None, sample)).to_numpy())["tokens"]


@pytest.mark.parametrize(("guidance", "gate", "times"), [(1, 1, 50), (0, 1, 50), (3, 1, 100), (3, 0.5, 75)])
def test_the_network_is_asked_as_often_as_guidance_needs(params, guidance, gate, times):
    given = config.parse(params.model_dump(), {"sample.guidance": guidance, "sample.guidance_gate": gate})
    said = dict(cells(overview.way(given, None, coloured(given))).to_numpy())
    assert f"asked {times} times" in said["steps"]


# --- numbers ---


def test_three_numbers_stand_beside_the_published_ones(params):
    evaluation, third = finished(params, "tae-evaluation"), finished(params, "stage3")
    sample, found = finished(params, "sample"), finished(params, "retrieval")
    scores = {"tae-opl-off": {"psnr": 24.512, "psnr_ci95": 1.31, "clips": 12}}
    files.write_json(evaluation.folder / "summary.json", {"ucf101": scores})
    files.write_json(sample.folder / "summary.json", {"seconds_per_clip": 2.34})
    captions = {"prompts": 24, "share_nearest": 0.75, "share_nearest_ci95": [0.5, 0.9], "chance": 0.04}
    files.write_json(found.folder / "summary.json", {"caption": captions})
    writer = runs.MetricsWriter(third.metrics_path)
    for step in range(1, 6):
        writer.write(kind="train", step=step, loss=1.0, seconds=9.0 if step < 3 else 1.25)
    rows = cells(overview.numbers(params, evaluation, third, sample, found))
    assert list(rows["published"]) == ["31.35", "-", "23.2 a step (1B)"]
    assert list(rows["here"]) == [
        "24.51 ± 1.3 (n = 12)",
        "75.0 % (50.0 % to 90.0 %, n = 24); by chance 4.0 %",
        "1.25 a step; 2.34 a sampled clip",
    ]
    assert all(said.startswith("no: ") for said in rows["comparable?"])
    assert "128x128x16" in rows["comparable?"][0] and "16x144x240" in rows["comparable?"][2]


def test_a_published_size_on_cards_is_compared_with_its_own():
    published = config.load("5B")
    row = cells(overview.numbers(published, None, None, None, None)).iloc[2]
    assert row["published"] == "83.2 a step (5B)"
    assert row["comparable?"].startswith("in part: the same size")


def test_what_these_pages_were_made_with_is_said_from_the_parameters(params):
    said = words(overview.made_here(config.parse(params.model_dump(), {"sample.frames": 8})))
    assert "100, 800, 250 updates in 3 stages on 1 or 2 workers (CPU)" in said
    assert "1x6x6 to 4x12x12 to 4x36x36 patches" in said and "clips of 8 frames of 144x240 pixels" in said
