"""Embeddings are used with the encoders that made them, at the shape the parameters say, and with no others."""

import json

import numpy as np
import pytest

from moviegen import config, programs, runs, text
from moviegen.config import ConfigError
from moviegen.data.buckets import Bucket
from moviegen.data.datasets import Clip
from moviegen.data.prepare import data_folder
from moviegen.device.collectives import World
from moviegen.precompute import latent_file
from moviegen.text.embeddings import Embedding, save_embedding
from moviegen.train.dit_batches import load_sets
from moviegen.weights import replace_npz
from tests.text.making import write_ul2

CAPTIONS = ["a dog", "a red car"]


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of embeddings that the stand-ins of `params/smoke.yaml` made."""
    text.encode_captions(tmp_path / "embeddings", CAPTIONS, config.load("smoke"), World())
    return tmp_path / "embeddings"


def stage_of(folder, overrides=None):
    """A stage whose recipe names a folder of embeddings."""
    return runs.find(config.load("smoke", {"dataset.text_emb_folder": str(folder), **(overrides or {})}), "stage1")


# --- whose they are ---


def test_a_stage_reads_the_folder_it_names(elsewhere):
    found = text.stage_embeddings(stage_of(elsewhere), ["a red car", ""])
    wanted = text.read_embeddings(elsewhere, ["a red car", ""], config.load("smoke").text)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


def test_a_stage_that_names_none_reads_the_reports_own(text_run):
    with runs.record(text_run):
        text.encode_run(text_run, World())
    *found, keep = text.stage_embeddings(runs.find(text_run.params, "stage2"), ["a dog"])
    *wanted, mask = text.load_embeddings(text_run, ["a dog"])
    assert np.array_equal(keep, mask)
    assert np.array_equal(found[0], wanted[0])


def test_a_stage_refuses_the_reports_own_where_other_encoders_made_them(text_run):
    """As where an encoder's files were exchanged for some of the same size and time, which fingerprints stand on."""
    with runs.record(text_run):
        other = config.load("smoke", {"seed": 7})
        text.encode_captions(text_run.folder, ["a dog"], other, World())
    with pytest.raises(ConfigError, match=r"ul2 embeddings in .* were made by a stand-in encoder"):
        text.stage_embeddings(runs.find(text_run.params, "stage2"), ["a dog"])


def test_training_refuses_them_as_it_reads_them(elsewhere, tmp_path):
    stage, bucket = stage_of(elsewhere), Bucket(1, 48, 80)
    root = data_folder(stage.params)
    clip = Clip(root / "0.mp4", caption="a dog")
    latent = np.ones((16, 1, 6, 10), np.float32)
    replace_npz(latent_file(tmp_path, bucket, clip, root), latent_mean=latent, latent_std=latent)
    found = load_sets(stage, tmp_path, {bucket: [clip]})[bucket].read(np.array([0]))
    assert np.array_equal(found.ul2, text.read_embeddings(elsewhere, ["a dog"], stage.params.text)[0])
    with pytest.raises(ConfigError, match=r"ul2 embeddings in .* were made by a stand-in encoder"):
        load_sets(stage_of(elsewhere, {"seed": 7}), tmp_path, {bucket: [clip]})


def test_another_seed_made_them(elsewhere):
    with pytest.raises(ConfigError) as raised:
        text.check_origin(elsewhere, config.load("smoke", {"seed": 7}))
    marks = [text.encoders(config.load("smoke", {"seed": seed}))[0].sha256()[:12] for seed in (42, 7)]
    for part in ("the ul2 embeddings", str(elsewhere), *marks, "text.ul2", "stand-in", "text encode"):
        assert part in str(raised.value)


def test_an_encoder_changed_since(tmp_path):
    setting = write_ul2(tmp_path / "ul2")
    params = config.load("smoke", {f"text.ul2.{key}": value for key, value in setting.model_dump().items()})
    text.encode_captions(tmp_path / "out", CAPTIONS, params, World())
    text.check_origin(tmp_path / "out", params)
    before = text.encoders(params)[0].sha256()
    weights = tmp_path / "ul2" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of one weight
    with pytest.raises(ConfigError, match=f"made by a t5 encoder of 8 tokens with checksum {before[:12]}"):
        text.check_origin(tmp_path / "out", params)


def test_folder_that_was_not_finished(elsewhere):
    (elsewhere / "summary.json").unlink()
    with pytest.raises(ConfigError, match="holds no finished embeddings"):
        text.stage_embeddings(stage_of(elsewhere), CAPTIONS)


def test_folder_that_says_nothing_of_its_encoders(elsewhere):
    (elsewhere / "summary.json").write_text(json.dumps({"captions": 3}))
    with pytest.raises(ConfigError, match="were made by an unknown encoder"):
        text.stage_embeddings(stage_of(elsewhere), CAPTIONS)


def test_a_folder_holds_embeddings_of_one_set_of_encoders(elsewhere):
    other = config.load("smoke", {"seed": 7})
    (elsewhere / "summary.json").unlink()  # whether or not they came to an end
    with pytest.raises(ConfigError, match="holds embeddings of other encoders"):
        text.encode_captions(elsewhere, ["something else"], other, World())
    assert not text.caption_file(elsewhere, "ul2", "something else").exists()


# --- what they are ---


def test_missing_caption_is_named(elsewhere):
    with pytest.raises(ConfigError, match=r"ul2/\w{16}.npz is missing, the ul2 embedding of 'a cat'"):
        text.stage_embeddings(stage_of(elsewhere), ["a dog", "a cat"])


@pytest.mark.parametrize(("shape", "found"), [((24, 63), "24x63"), ((23, 64), "23x64"), ((24,), "24 values")])
def test_wrong_shape_names_file_found_and_wanted(elsewhere, shape, found):
    path = text.caption_file(elsewhere, "ul2", "a dog")
    save_embedding(path, Embedding(np.zeros(shape, np.float32), np.ones(24, bool), np.zeros(24, np.int64)))
    with pytest.raises(ConfigError) as raised:
        text.read_embeddings(elsewhere, ["a dog"], config.load("smoke").text)
    for part in (str(path), found, "text.ul2", "24x64"):
        assert part in str(raised.value)


def test_mask_of_another_length_names_file_and_both(elsewhere):
    path = text.caption_file(elsewhere, "metaclip", "a dog")
    save_embedding(path, Embedding(np.zeros((16, 48), np.float32), np.ones(15, bool), np.zeros(16, np.int64)))
    with pytest.raises(ConfigError) as raised:
        text.read_embeddings(elsewhere, ["a dog"], config.load("smoke").text)
    for part in (str(path), "mask of shape (15,)", "16 tokens"):
        assert part in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_damaged_file(elsewhere, content):
    path = text.caption_file(elsewhere, "byt5", "")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path} is damaged"):
        text.read_embeddings(elsewhere, [""], config.load("smoke").text)


# --- fingerprints ---


def changed(params, change):
    """The programs whose fingerprint a change of files changes."""
    before = {name: programs.fingerprint(params, name) for name in programs.PROGRAMS}
    change()
    return {name for name in before if programs.fingerprint(params, name) != before[name]}


def test_another_file_in_an_encoders_folder_is_another_run(tmp_path):
    setting = write_ul2(tmp_path)
    params = config.load("smoke", {f"text.ul2.{key}": value for key, value in setting.model_dump().items()})
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        path = tmp_path / name
        found = changed(params, lambda path=path: path.write_bytes(path.read_bytes() + b" "))
        assert {"text", "stage1", "stage2", "stage3", "sample"} <= found
        assert not found & {"data", "tae-image", "tae-mixkit", "latents"}
    assert not changed(params, lambda: (tmp_path / "notes.md").write_text("mine"))


def test_embeddings_made_anew_are_another_training(elsewhere):
    params = config.load("smoke", {"stages.2.dataset.text_emb_folder": str(elsewhere)})
    summary = elsewhere / "summary.json"
    found = changed(params, lambda: summary.write_text(summary.read_text() + "\n"))
    assert {"stage2", "stage3", "sample"} <= found
    assert not found & {"stage1", "text"}
