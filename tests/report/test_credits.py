"""Who is named for what is shown, and what the manifests of shipped weights say."""

import json

import pytest

from moviegen import config
from moviegen.report import credits

SCORES = {"rule": "centre 16 frames, 128x128", "clips": {}}
MANIFEST = {"program": "tae-image", "machine": {"cores": 2}, "seconds": 100.0, "before": {"data": {"seconds": 20.0}}}


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def test_the_film_s_makers_are_named_where_it_is_shown_and_only_there():
    tiny = config.load("tiny")
    assert "(c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0" in credits.film(tiny).data
    for params in (config.load("tiny", {"assets": "none"}), config.load("tiny", {"data.root": "/my/clips"})):
        assert "Blender" not in credits.film(params).data
    assert "/my/clips" in credits.film(config.load("tiny", {"data.root": "/my/clips"})).data


def test_those_whose_weights_are_used_are_named():
    assert "sentence-transformers" in credits.used_weights(config.load("tiny")).data
    assert "Zhang" in credits.used_weights(config.load("tiny")).data
    without = credits.used_weights(config.load("tiny", {"assets": "none"})).data
    assert "Zhang" not in without and "No weights of others" in without


def test_shipped_autoencoders_show_their_manifests(tmp_path):
    measured = {"clips": 11, "psnr": 27.1234, "ssim": 0.81234, "lpips": 0.25432}
    scores = SCORES | {"film": measured, "photographs": measured | {"psnr": 26.0, "clips": 16}}
    (tmp_path / "one.json").write_text(json.dumps(MANIFEST | {"scores": scores}))
    params = config.load("tiny", {"tae.vae_checkpoint": str(tmp_path / "one.safetensors"),
                                  "shipped.tae": str(tmp_path / "none.safetensors")})  # fmt: skip
    shown = credits.shipped_autoencoders(params).data
    for text in ("11 of film", "16 of photographs", "27.12", "0.812", "0.254", "2 min 00 s", "CPU", "one.safetensors"):
        assert text in shown, text
    assert "none.safetensors" not in shown


def test_a_shipped_transformer_shows_its_retrieval(tmp_path):
    found = {"prompts": 117, "share_nearest": 0.95, "share_nearest_ci95": [0.9, 0.98], "chance": 0.0085}
    scores = {"retrieval": {"caption": found, "paraphrase": found | {"prompts": 93, "share_nearest": 0.75}}}
    machine = {"gpu": "a card of theirs"}
    (tmp_path / "one.json").write_text(json.dumps(MANIFEST | {"machine": machine, "scores": scores}))
    named = {"shipped.transformer": str(tmp_path / "one.safetensors"), "shipped.tae": "x"}
    shown = credits.shipped_transformer(config.load("tiny", named)).data
    for text in ("117 captions", "93 paraphrases", "95.0 %", "75.0 %", "90.0 % to 98.0 %", "a card of theirs"):
        assert text in shown, text


def test_without_manifests_they_are_not_run():
    params = config.load("smoke")
    for shown in (credits.shipped_autoencoders(params), credits.shipped_transformer(params)):
        assert "not run here" in shown.data
