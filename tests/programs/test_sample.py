"""`sample`: the report's clips, each beside the one its caption belongs to, and what is refused."""

import csv
import itertools
import json

import numpy as np
import pytest

from moviegen import __main__, config, runs
from moviegen.config import ConfigError
from moviegen.data import videos
from moviegen.data.embeddings import caption_file, read_embeddings
from moviegen.dit.weights import save_dit
from moviegen.programs import sample
from moviegen.tae.model import TAE
from moviegen.tae.weights import save_tae
from tests import small_runs

CAPTIONS = ["one", "two", "three", "four"]
OVERRIDES = {"sample.size": [32, 48], "sample.num_prompts": 2, "sample.batch_size": 3, "sample.steps": 2}


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Parameters of a small report, all of it run but for sampling."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", OVERRIDES)
    small_runs.write_data(params, CAPTIONS)
    small_runs.write_text(params, CAPTIONS)
    small_runs.write_tae(params)
    small_runs.write_dit(params, 3)
    runs.find(params, "sample").write_params()
    return params


def command(params):
    return __main__.main(["sample", "--config", str(runs.find(params, "sample").params_path)])


def test_every_chosen_caption_gets_its_clip_beside_its_own(report, bars_of):
    bars = bars_of(sample)
    assert command(report) == 0
    assert [(bar.total, bar.n) for bar in bars] == [(4, 4)]  # two batches of two steps
    run = runs.find(report, "sample")
    assert run.complete
    with (run.folder / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["caption"]) for row in rows] == [
        ("val", "one"), ("val", "two"), ("train", "three"), ("train", "four"),
    ]  # fmt: skip
    assert [int(row["seed"]) for row in rows] == [42, 43, 44, 45]
    for row in rows:
        for kind in ("generated", "reference"):
            info = videos.probe(run.folder / row[kind])
            fps = {"generated": report.sample.fps, "reference": 25}[kind]  # a real clip plays at its own speed
            assert (info.frames, info.height, info.width, info.fps) == (16, 32, 48, fps)
    frames = [videos.read_frames(run.folder / row["generated"], [0]) for row in rows]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(frames, 2))
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["clips"] == 4
    assert summary["seconds_per_clip"] is None  # one whole batch, which compiled, and a shorter one, which did too


def test_embeddings_of_the_wrong_width_are_an_error(report, capsys):
    path = caption_file(runs.find(report, "text").folder, "metaclip", "two")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"text_emb": arrays["text_emb"][:, :-1]})
    assert command(report) == 2
    assert "error: " in (message := capsys.readouterr().err)
    assert str(path) in message
    assert "47" in message


def test_a_checkpoint_of_another_size_is_an_error(report, capsys):
    folder = runs.find(report, "stage3").folder
    wider = report.dit_config(3).model_copy(update={"width": 32})
    save_dit(folder / "dit.safetensors", small_runs.random_dit(wider))
    assert command(report) == 2
    assert "does not fit the model" in capsys.readouterr().err
    assert runs.find(report, "sample").manifest["status"] == "failed"


def test_an_autoencoder_of_other_latents_is_an_error(report, capsys):
    """As where a file was put in the place of the report's own."""
    tae, dit = (runs.find(report, name).folder for name in ("tae-mixkit", "stage3"))
    save_tae(tae / "tae.safetensors", TAE(small_runs.SMALL_TAE.model_copy(update={"latent_channels": 4})))
    assert command(report) == 2
    error = capsys.readouterr().err
    assert f"{tae / 'tae.safetensors'} decodes latents of 4 channels, and {dit / 'dit.safetensors'} makes 16" in error
    assert not (runs.find(report, "sample").folder / "videos").exists()


@pytest.fixture
def asked(monkeypatch):
    """What the pipeline is made from; nothing is sampled."""
    asked = {}

    def pipeline(params, settings, dit, tae, embed):
        asked.update(dit=dit, tae=tae, embed=embed)
        raise ConfigError("nothing is sampled")

    monkeypatch.setattr(sample, "Pipeline", pipeline)
    return asked


def test_the_average_of_the_weights_is_sampled_where_there_is_one(report, asked):
    stage, tae = (runs.find(report, name).folder for name in ("stage3", "tae-mixkit"))
    assert command(report) == 2
    assert (asked["dit"], asked["tae"]) == (stage / "dit.safetensors", tae / "tae.safetensors")
    save_dit(stage / "dit_ema.safetensors", small_runs.random_dit(report.dit_config(3), seed=9))
    assert command(report) == 2
    assert asked["dit"] == stage / "dit_ema.safetensors"


def test_the_embeddings_that_stage_3_names_are_sampled_with(report, asked, tmp_path):
    runs.find(report, "text").folder.rename(tmp_path / "elsewhere")
    named = config.load("smoke", OVERRIDES | {"stages.3.dataset.text_emb_folder": str(tmp_path / "elsewhere")})
    small_runs.write_dit(named, 3)
    run = runs.find(named, "sample")
    run.write_params()
    assert command(named) == 2
    assert "text" not in run.manifest["upstream"]
    captions = ["two", ""]
    embeddings = read_embeddings(tmp_path / "elsewhere", captions, named.text)
    for array, expected in zip(asked["embed"](captions), embeddings, strict=True):
        np.testing.assert_array_equal(array, expected)
