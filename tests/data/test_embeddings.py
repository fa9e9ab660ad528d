"""Embeddings are used with the encoders that made them, at the shape the parameters say, and with no others."""

import json
import os

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import ConfigError
from moviegen.data.embeddings import (
    caption_file,
    check_captions,
    check_origins,
    embeddings_folder,
    open_embeddings,
    read_embeddings,
    save_embedding,
    text_arrays,
)
from moviegen.device.world import World
from moviegen.programs.encode_text import encode_captions, encode_run
from moviegen.runs import fingerprint, registry
from moviegen.runs.arrays import save_npz
from moviegen.text.encoders import encoders, origins
from tests import small_runs
from tests.text.making import write_ul2

CAPTIONS = ["a dog", "a red car"]


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of embeddings that the stand-ins of `params/smoke.yaml` made."""
    encode_captions(tmp_path / "embeddings", CAPTIONS, config.load("smoke"), World())
    return tmp_path / "embeddings"


@pytest.fixture
def text_run():
    """A text run, not yet done, over a data run of CAPTIONS."""
    params = config.load("smoke")
    small_runs.write_data(params, CAPTIONS)
    return runs.find(params, "text")


def stage_of(folder, overrides=None):
    """A stage whose recipe names a folder of embeddings."""
    return runs.find(config.load("smoke", {"dataset.text_emb_folder": str(folder), **(overrides or {})}), "stage1")


def origins_of(params):
    return origins(encoders(params))


def folder_of(run, stage):
    """Where a stage of a run finds its embeddings."""
    return embeddings_folder(run, stage, origins_of(run.params))


def encoded(captions):
    """What the transformer takes of captions, from the encoders themselves."""
    return text_arrays(
        [(one.text_emb, one.mask) for one in encoder.encode(captions)] for encoder in encoders(config.load("smoke"))
    )


def assert_equal(arrays, others):
    for one, other in zip(arrays, others, strict=True):
        assert np.array_equal(one, other)


# --- whose they are ---


def test_a_stage_reads_the_folder_it_names(elsewhere):
    stage = stage_of(elsewhere)
    assert folder_of(stage, 1) == elsewhere
    captions = ["a red car", ""]
    assert_equal(read_embeddings(elsewhere, captions, stage.params.text), encoded(captions))


def test_each_stage_has_the_folder_of_its_own_recipe(elsewhere, text_run):
    """The program that asks is another's: samples are drawn from stage 3, with stage 3's text."""
    with runs.record(text_run):
        encode_run(text_run, World())
    params = config.load("smoke", {"stages.3.dataset.text_emb_folder": str(elsewhere)})
    sample = runs.find(params, "sample")
    assert folder_of(sample, 3) == elsewhere
    assert folder_of(sample, 2) == text_run.folder


def test_a_named_folder_starts_at_the_checkouts_top(monkeypatch, elsewhere):
    stage = stage_of("embeddings")
    monkeypatch.setattr("moviegen.config.loading.project_root", lambda: elsewhere.parent)
    assert folder_of(stage, 1) == elsewhere


def test_a_stage_that_names_none_reads_the_reports_own(text_run):
    with runs.record(text_run):
        encode_run(text_run, World())
    folder = folder_of(runs.find(text_run.params, "stage2"), 2)
    assert folder == text_run.folder
    assert_equal(read_embeddings(folder, ["a dog"], text_run.params.text), encoded(["a dog"]))


def test_a_stage_before_its_text_names_the_command(text_run):
    with pytest.raises(ConfigError, match=rf"stage2 needs {text_run.name}, .*`python -m moviegen text encode --config"):
        folder_of(runs.find(text_run.params, "stage2"), 2)


def test_a_stage_refuses_the_reports_own_where_other_encoders_made_them(text_run):
    """As where an encoder's files were exchanged for some of the same size and time, whose hashes are remembered."""
    with runs.record(text_run):
        encode_captions(text_run.folder, ["a dog"], config.load("smoke", {"seed": 7}), World())
    with pytest.raises(ConfigError, match=r"ul2 embeddings in .* were made by a stand-in encoder"):
        folder_of(runs.find(text_run.params, "stage2"), 2)


def test_another_seed_made_them(elsewhere):
    with pytest.raises(ConfigError) as raised:
        check_origins(elsewhere, origins_of(config.load("smoke", {"seed": 7})))
    marks = [encoders(config.load("smoke", {"seed": seed}))[0].sha256()[:12] for seed in (42, 7)]
    for part in ("the ul2 embeddings", str(elsewhere), *marks, "text.ul2", "stand-in", "text encode"):
        assert part in str(raised.value)


@pytest.mark.parametrize("name", config.TEXT_ENCODERS)
def test_one_encoder_of_the_three_is_another(elsewhere, name):
    params = config.load("smoke", {f"text.{name}.max_tokens": 9})
    with pytest.raises(ConfigError, match=rf"the {name} embeddings .* under text.{name} name a stand-in encoder of 9"):
        check_origins(elsewhere, origins_of(params))


def test_an_encoder_changed_since(tmp_path):
    setting = write_ul2(tmp_path / "ul2")
    params = config.load("smoke", {f"text.ul2.{key}": value for key, value in setting.model_dump().items()})
    encode_captions(tmp_path / "out", CAPTIONS, params, World())
    check_origins(tmp_path / "out", origins_of(params))
    before = encoders(params)[0].sha256()
    weights = tmp_path / "ul2" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of one weight
    with pytest.raises(ConfigError, match=f"made by a t5 encoder of 8 tokens with checksum {before[:12]}"):
        check_origins(tmp_path / "out", origins_of(params))


def test_folder_that_was_not_finished(elsewhere):
    (elsewhere / "summary.json").unlink()
    with pytest.raises(ConfigError, match="holds no finished embeddings"):
        folder_of(stage_of(elsewhere), 1)


def test_folder_that_says_nothing_of_its_encoders(elsewhere):
    (elsewhere / "summary.json").write_text(json.dumps({"captions": 3}))
    with pytest.raises(ConfigError, match="were made by an unknown encoder"):
        folder_of(stage_of(elsewhere), 1)


def test_a_folder_holds_embeddings_of_one_set_of_encoders(elsewhere):
    other = config.load("smoke", {"seed": 7})
    (elsewhere / "summary.json").unlink()  # whether or not they came to an end
    with pytest.raises(ConfigError, match="holds embeddings of other encoders"):
        encode_captions(elsewhere, ["something else"], other, World())
    assert not caption_file(elsewhere, "ul2", "something else").exists()


# --- what they are ---


def halved(values):
    """float32, of the values that float16 has."""
    return values.astype(np.float16).astype(np.float32)


def test_arrays_of_captions_are_each_encoders_and_their_masks_side_by_side():
    rng = np.random.default_rng(0)
    sizes = ((3, 4), (2, 5), (1, 6))  # tokens and width of each encoder
    embeddings = [[(rng.standard_normal(size), rng.random(size[0]) < 0.5) for _ in range(2)] for size in sizes]
    *texts, mask = text_arrays(iter(captions) for captions in embeddings)
    assert [(text.shape, text.dtype) for text in texts] == [((2, *size), np.float32) for size in sizes]
    assert (mask.shape, mask.dtype) == ((2, 3 + 2 + 1), bool)
    for caption in range(2):
        for text, encoder in zip(texts, embeddings, strict=True):
            assert np.array_equal(text[caption], halved(encoder[caption][0]))
        assert np.array_equal(mask[caption], np.concatenate([encoder[caption][1] for encoder in embeddings]))


def save_all(folder, settings, save):
    """Random embeddings of a caption, zero where the mask is False; returns those."""
    rng, saved = np.random.default_rng(0), []
    for name, encoder in settings.encoders.items():
        mask = rng.random(encoder.max_tokens) < 0.5
        text_emb = rng.standard_normal((encoder.max_tokens, encoder.width), np.float32) * mask[:, None]
        saved.append((text_emb, mask))
        save(caption_file(folder, name, "a dog"), text_emb, mask, np.arange(encoder.max_tokens))
    return saved


def test_what_is_saved_is_read_again(tmp_path):
    settings = config.load("smoke").text
    saved = save_all(tmp_path, settings, save_embedding)
    assert_equal(read_embeddings(tmp_path, ["a dog"], settings), text_arrays([one] for one in saved))


def test_a_file_holds_the_captions_own_tokens_in_float16(tmp_path):
    settings = config.load("smoke").text
    for (name, _), (_, mask) in zip(
        settings.encoders.items(), save_all(tmp_path, settings, save_embedding), strict=True
    ):
        with np.load(caption_file(tmp_path, name, "a dog")) as file:
            assert (len(file["text_emb"]), file["text_emb"].dtype) == (mask.sum(), np.float16)
            assert np.array_equal(file["tokens"], np.flatnonzero(mask))


def test_folders_of_whole_rows_in_float32_are_read_too(tmp_path):
    settings = config.load("smoke").text
    saved = save_all(
        tmp_path, settings, lambda path, text_emb, mask, tokens: save_npz(path, text_emb=text_emb, mask=mask)
    )
    assert_equal(read_embeddings(tmp_path, ["a dog"], settings), text_arrays([one] for one in saved))
    check_captions(open_embeddings(tmp_path), ["a dog"], settings)


@pytest.mark.parametrize("value", [np.nan, np.inf, 65_520])
def test_values_that_float16_has_not_are_refused(tmp_path, value):
    text_emb, keep = np.ones((2, 3), np.float32), np.array([True, False])
    path = caption_file(tmp_path, "ul2", "a dog")
    text_emb[1, 0] = value  # filling
    save_embedding(path, text_emb, keep, np.zeros(2, int))
    text_emb[0, 0] = value
    with pytest.raises(ConfigError, match=r"\.npz: an embedding has values that are no numbers, or beyond 65,504"):
        save_embedding(path, text_emb, keep, np.zeros(2, int))


def look_by_headers(folder, captions, settings):
    """As in a folder that was made elsewhere."""
    (folder / "index.csv").unlink()
    check_captions(open_embeddings(folder), captions, settings)


def look_by_index(folder, captions, settings):
    check_captions(open_embeddings(folder), captions, settings)


@pytest.mark.parametrize("look", [read_embeddings, look_by_headers, look_by_index])
def test_missing_caption_is_named(elsewhere, look):
    with pytest.raises(ConfigError, match=r"ul2/\w{16}.npz is missing, the ul2 embedding of 'a cat'"):
        look(elsewhere, ["a dog", "a cat"], config.load("smoke").text)


@pytest.mark.parametrize("look", [read_embeddings, look_by_headers])
@pytest.mark.parametrize(("shape", "named"), [((24, 63), "24x63"), ((25, 64), "25x64"), ((24,), "24 values")])
def test_wrong_shape_names_file_and_both_shapes(elsewhere, shape, named, look):
    path = caption_file(elsewhere, "ul2", "a dog")
    save_npz(path, text_emb=np.zeros(shape, np.float32), mask=np.ones(24, bool))
    with pytest.raises(ConfigError) as raised:
        look(elsewhere, ["a dog"], config.load("smoke").text)
    for part in (str(path), named, "text.ul2", "24x64"):
        assert part in str(raised.value)


def test_another_width_than_the_index_says_is_refused(elsewhere):
    settings = config.load("smoke", {"text.ul2.width": 65}).text
    with pytest.raises(ConfigError, match=r"holds \d+x64 values .* text.ul2 says at most 24x65"):
        look_by_index(elsewhere, ["a dog"], settings)


@pytest.mark.parametrize("look", [read_embeddings, look_by_headers])
def test_mask_of_another_length_names_file_and_both(elsewhere, look):
    path = caption_file(elsewhere, "metaclip", "a dog")
    save_npz(path, text_emb=np.zeros((16, 48), np.float32), mask=np.ones(15, bool))
    with pytest.raises(ConfigError) as raised:
        look(elsewhere, ["a dog"], config.load("smoke").text)
    for part in (str(path), "mask of shape (15,)", "16 tokens"):
        assert part in str(raised.value)


def test_fewer_tokens_than_the_mask_says_are_refused(elsewhere):
    path = caption_file(elsewhere, "metaclip", "a dog")
    save_npz(path, text_emb=np.zeros((3, 48), np.float16), mask=np.arange(16) < 4)
    with pytest.raises(ConfigError, match=rf"{path} holds 3 tokens, and its mask says 4"):
        read_embeddings(elsewhere, ["a dog"], config.load("smoke").text)


@pytest.mark.parametrize("look", [read_embeddings, look_by_headers])
@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_damaged_file(elsewhere, content, look):
    path = caption_file(elsewhere, "byt5", "")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path} is damaged"):
        look(elsewhere, [""], config.load("smoke").text)


# --- fingerprints ---


def changed(params, change):
    """The programs whose fingerprint a change of files changes."""
    before = {name: fingerprint.fingerprint(params, name) for name in registry.PROGRAMS}
    change()
    fingerprint.forget()
    return {name for name in before if fingerprint.fingerprint(params, name) != before[name]}


def test_another_file_in_an_encoders_folder_is_another_run(tmp_path):
    folder = tmp_path / "ul2"
    setting = write_ul2(folder)
    params = config.load("smoke", {f"text.ul2.{key}": value for key, value in setting.model_dump().items()})
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        path = folder / name
        others = changed(params, lambda path=path: path.write_bytes(path.read_bytes() + b" "))
        assert {"text", "stage1", "stage2", "stage3", "sample"} <= others
        assert not others & {"data", "tae-image", "tae-mixkit", "latents"}
    assert not changed(params, lambda: (folder / "notes.md").write_text("mine"))
    assert not changed(params, lambda: os.utime(folder / "model.safetensors", (0, 0)))  # the same content


def test_embeddings_made_anew_are_another_training(elsewhere):
    params = config.load("smoke", {"stages.2.dataset.text_emb_folder": str(elsewhere)})
    summary = elsewhere / "summary.json"
    others = changed(params, lambda: summary.write_text(summary.read_text() + "\n"))
    assert {"stage2", "stage3", "sample"} <= others
    assert not others & {"stage1", "text"}
