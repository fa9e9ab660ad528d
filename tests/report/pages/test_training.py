import html
import re

import numpy as np
import pytest
import yaml

from moviegen import config
from moviegen.data import videos
from moviegen.data.clips import Clip, save_index
from moviegen.data.splits import data_folder
from moviegen.flow import path
from moviegen.report import published, samples
from moviegen.report.pages import training
from moviegen.report.results import DamagedFile
from moviegen.runs import files
from tests.report.making import cells, finished, svg, words


@pytest.mark.parametrize("make", [lambda params: None, lambda params: finished(params, "latents")])
def test_without_a_count_there_are_no_buckets(params, make):
    assert "not run here" in training.buckets(make(params), 2).data


def test_buckets_hold_the_numbers_of_their_stage(params):
    run = finished(params, "latents")
    counts = {(1, 1, 48, 80): 71, (2, 1, 48, 80): 72, (2, 1, 80, 48): 0, (2, 16, 48, 80): 73, (2, 16, 80, 48): 74}
    lines = [",".join(map(str, (*bucket, clips, 5))) for bucket, clips in counts.items()]
    files.write_text(run.folder / "buckets.csv", "\n".join(["stage,frames,height,width,clips,held_out", *lines]) + "\n")
    one, several = (svg(training.buckets(run, stage)) for stage in (1, 2))
    labels = [re.findall(r"<!-- (.*?) -->", drawing) for drawing in (one, several)]
    assert [label for label in labels[0] if label.isdigit()] == ["48", "71"]
    assert [label for label in labels[1] if label.isdigit()] == ["80", "48", "72", "0", "73", "74"]
    assert "images" in labels[0]
    assert "16 frames" not in labels[0]
    assert {"images", "16 frames"} <= set(labels[1])


@pytest.mark.parametrize("show", [training.frequencies, training.shapes])
def test_a_stage_that_was_not_run_saw_no_clips_and_compiled_nothing(show, params):
    assert "not run here" in show(None, 2).data
    assert "not run here" in show(finished(params, "stage2"), 2).data


def test_how_often_clips_are_seen_is_shown_by_bucket_and_medium(params):
    run = finished(params, "stage2")
    seen = {(1, 48, 80): (3, 4, 4), (1, 80, 48): (2,), (16, 48, 80): (5, 6)}
    lines = [
        ",".join(map(str, (*bucket, f"{i}.mp4", n))) for bucket, counts in seen.items() for i, n in enumerate(counts)
    ]
    files.write_text(run.folder / "clips_seen.csv", "\n".join(["frames,height,width,clip,times", *lines]) + "\n")
    rows = cells(training.frequencies(run, 2)).astype(str).set_index("bucket")
    assert rows.loc["image, 48x80"].tolist() == ["3", "3", "4", "4"]
    assert rows.loc["image, 80x48"].tolist() == ["1", "2", "2", "2"]
    assert rows.loc["16 frames, 48x80"].tolist() == ["2", "5", "5.5", "6"]
    assert rows.loc["all images"].tolist() == ["4", "2", "3.5", "4"]
    assert rows.loc["all videos"].tolist() == ["2", "5", "5.5", "6"]


def test_compiled_shapes_name_the_buckets_that_share_them(params):
    run = finished(params, "stage2")
    files.write_text(run.folder / "graphs.csv", "use,samples,tokens,buckets\ntraining,2,1000,1x48x80 1x80x48\n")
    (row,) = cells(training.shapes(run, 2)).astype(str).to_dict("records")
    assert row == {"graph of": "training", "samples": "2", "tokens of each": "1,000", "buckets": "1x48x80 1x80x48"}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_recipe_is_the_one_of_the_stage(params, stage):
    rows = cells(training.recipe(params, stage)).set_index("parameter")["value"]
    recipe = params.recipes[stage]
    assert rows["updates"] == str(recipe.train.steps)
    assert rows["frames"] == ", ".join(map(str, recipe.dataset.frames))


@pytest.mark.parametrize(("steps", "can_be"), [(300, False), (301, True), (400, True)])
def test_a_run_that_is_too_short_for_its_plateau_rule_says_so(steps, can_be):
    """The first validation is always the best so far: a rule of 3 takes 4."""
    params = config.load("tiny", {"train.steps": steps, "valid.frequency": 100, "train.lr_scheduler.patience": 3,
                                  "train.save.interval": 100})  # fmt: skip
    said = cells(training.recipe(params, 1)).set_index("parameter")["value"]["on a plateau"]
    assert said.startswith("rate times 0.5 after 3 validations without improvement")
    assert said.endswith(": never in this run, which has 3") != can_be


def test_the_objectives_number_is_the_one_that_is_trained_with(params):
    assert published.SIGMA_MIN == path.SIGMA_MIN
    said = words(training.objective(params, 3))
    assert f"{path.SIGMA_MIN:g}" in said
    assert f"a shift of {params.recipes[3].train.time_shift:g}" in said


def test_stages_stand_beside_the_published_recipes(params):
    rows = cells(training.stages(params)).astype(str)
    assert list(rows["stage"]) == ["1", "1", "2", "2", "3", "3"]
    assert list(rows["height x width"])[1::2] == ["256x448", "256x448", "576x1024"]
    assert rows["tokens, at most"][5] == "73,728"  # 32 x 36 x 64


def test_each_flag_of_the_originals_script_has_its_place_here(params):
    for stage in (1, 2, 3):
        rows = cells(training.script(params, stage)).astype(str)
        assert len(rows) == len(published.SCRIPTS[stage])
        assert "differs" not in set(rows["original against 5B here"])
    rows = rows.set_index("original script")
    assert rows.loc["--train.steps 30000", "recipe 5B"] == "6000"  # of five micro-batches each
    assert rows.loc["--train.optimizer.weight_decay 0", "original against 5B here"] == "as there"
    assert rows.loc["--train.settings.zero_stage 2", "recipe tiny"] == "0"


def test_a_command_starts_as_many_workers_as_the_recipe_has(params):
    assert "msrun \\\n    --worker_num=2 " in training.command(params, 1).data
    alone = training.command(params, 2).data
    assert "<pre>msrun" not in alone
    assert "python -m moviegen train \\\n    --stage 2 \\\n    --config" in alone


def test_every_parameter_of_a_stage_is_there(params):
    written = html.unescape(training.parameters(params, 3).data).partition("<pre>")[2].partition("</pre>")[0]
    assert yaml.safe_load(written) == params.recipes[3].model_dump(mode="json")


def test_samples_stand_in_the_order_of_updates_the_first_and_the_last_among_them(params):
    run = finished(params, "stage1")
    rows, steps = ["step,kind,prompt,seed,generated"], (1, 800, 0, 100, 200, 300, 400, 500, 600, 700)
    for step in steps:
        videos.write_image(run.folder / f"{step}.png", np.zeros((48, 80, 3), np.uint8))
        rows.append(f"{step},unseen,a <cat>,42,{step}.png")
    assert "none are kept" in words(training.sampled(run, 1))
    (run.folder / "samples.csv").write_text("\n".join(rows) + "\n")
    shown = training.sampled(run, 1)
    captions = re.findall("<figcaption>(.*?)</figcaption>", shown.data)
    assert captions == ["before the first update", *(f"after {step} updates" for step in (100, 300, 500, 800))]
    assert 'alt="a sample after 800 updates: a &lt;cat&gt;"' in shown.data
    assert (
        "a &lt;cat&gt; (held out, seed 42)" in shown.data and "16 steps (linear-quadratic), guidance 1.5" in shown.data
    )
    assert "not run here" in training.sampled(None, 1).data
    (run.folder / "800.png").write_bytes((run.folder / "800.png").read_bytes()[:40])
    with pytest.raises(DamagedFile, match=r"800\.png cannot be read"):
        training.sampled(run, 1)


def test_samples_stand_beside_a_frame_of_the_clip_that_is_captioned_so(params):
    run, data, root = finished(params, "stage1"), finished(params, "data"), data_folder(params)
    videos.write_video(root / "cat.mp4", np.full((20, 96, 160, 3), (200, 0, 0), np.uint8), 12)
    clips = [Clip(root / "cat.mp4", caption="a cat", frames=20, height=96, width=160)]
    for split in ("mixkit_train", "mixkit_val"):
        save_index(data.folder / f"{split}.csv", clips, root)
    assert samples.real(run, 1, "a dog") is None
    frame = samples.real(run, 1, "a cat")
    assert frame.shape == (48, 80, 3)
    np.testing.assert_allclose(frame.mean((0, 1)), (200, 0, 0), atol=4)
    (root / "cat.mp4").unlink()
    assert samples.real(run, 1, "a cat") is None
