"""The stand-ins for UL2, MetaCLIP and ByT5: what they see of a caption, and the files the transformer reads."""

import csv
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, runs, text
from moviegen.data.datasets import Clip, save_index

ROOT = Path(__file__).parent.parent
CAPTIONS = ("a red car turns left", "a dog", "Ein Bär läuft")


@pytest.fixture
def encoders():
    return {encoder.name: encoder for encoder in text.encoders(config.load("smoke"))}


def hits(embedding):
    return int(embedding.mask.sum())


def test_encoders_stand_in_the_transformers_order():
    params = config.load("smoke")
    found = [(e.name, e.width, e.max_tokens) for e in text.encoders(params)]
    assert found == [("ul2", 64, 24), ("metaclip", 48, 16), ("byt5", 32, 32)]
    assert tuple(e.width for e in text.encoders(params)) == params.dit_config(1).text_widths


@pytest.mark.parametrize("name", text.ENCODERS)
@pytest.mark.parametrize("caption", ["", *CAPTIONS])
def test_shapes_and_padding(encoders, name, caption):
    encoder = encoders[name]
    one = encoder.encode(caption)
    assert one.text_emb.shape == (encoder.max_tokens, encoder.width)
    assert one.text_emb.dtype == np.float32
    assert one.mask.shape == one.tokens.shape == (encoder.max_tokens,)
    assert one.mask.dtype == bool
    used = hits(one)
    assert one.mask[:used].all()
    assert not one.text_emb[used:].any()
    assert not one.tokens[used:].any()
    assert np.abs(one.text_emb[:used]).max(axis=1).min() > 0  # no token's vector is nothing


@pytest.mark.parametrize(
    ("name", "tokens"), [("ul2", [0, 5, 2, 3]), ("metaclip", [0, 5, 2, 3]), ("byt5", [0, 20, 5, 15])]
)
def test_tokens_are_words_or_utf8_bytes_and_an_end(encoders, name, tokens):
    # "Ein Bär läuft" is 13 characters and 15 bytes
    assert [hits(encoders[name].encode(caption)) - 1 for caption in ("", *CAPTIONS)] == tokens


def test_byt5_sees_the_bytes_of_a_character(encoders):
    umlaut, twice = encoders["byt5"].encode("ä"), encoders["byt5"].encode("ää")
    assert hits(umlaut) == 2 + 1
    assert (twice.tokens[:2] == umlaut.tokens[:2]).all()
    assert (twice.tokens[2:4] == umlaut.tokens[:2]).all()
    # ä is C3 A4, ö is C3 B6
    other = encoders["byt5"].encode("ö")
    assert other.tokens[0] == umlaut.tokens[0]
    assert other.tokens[1] != umlaut.tokens[1]


def test_byt5_sees_capitals_and_the_others_do_not(encoders):
    for name, same in (("ul2", True), ("metaclip", True), ("byt5", False)):
        upper, lower = encoders[name].encode("A Dog"), encoders[name].encode("a dog")
        assert (upper.tokens == lower.tokens).all() == same


def test_empty_caption_is_the_end_alone(encoders):
    for encoder in encoders.values():
        nothing, dog = encoder.encode(""), encoder.encode("dog")
        assert hits(nothing) == 1
        assert nothing.tokens[0] == dog.tokens[hits(dog) - 1]


@pytest.mark.parametrize("name", text.ENCODERS)
def test_captions_are_told_apart(encoders, name):
    captions = (*CAPTIONS, "", "a dog a", "dog a", "left turns a red car")
    embeddings = [encoders[name].encode(caption).text_emb for caption in captions]
    for i, one in enumerate(embeddings):
        for other in embeddings[:i]:
            assert np.abs(one - other).max() > 0.1


def test_encoders_do_not_share_vectors(encoders):
    one, other = encoders["ul2"].encode("a dog"), encoders["metaclip"].encode("a dog")
    assert (one.tokens[:3] == other.tokens[:3]).all()
    assert np.abs(one.text_emb[0, :48] - other.text_emb[0]).max() > 0.1


def test_seed_decides_the_vectors():
    one = text.StandIn("ul2", 8, 4, seed=1)
    assert np.array_equal(one.encode("a").text_emb, text.StandIn("ul2", 8, 4, seed=1).encode("a").text_emb)
    assert np.abs(one.encode("a").text_emb - text.StandIn("ul2", 8, 4, seed=2).encode("a").text_emb).max() > 0.1


def test_place_of_a_word_counts(encoders):
    twice = encoders["ul2"].encode("dog dog").text_emb
    assert np.abs(twice[0] - twice[1]).max() > 0.05
    # and is a matter of the place alone: the same shift for every word
    again = encoders["ul2"].encode("cat cat").text_emb
    np.testing.assert_allclose(twice[1] - twice[0], again[1] - again[0], atol=1e-5)


def test_same_embedding_in_another_process(encoders):
    program = (
        "import sys; from moviegen import config, text;"
        f"emb = [e.encode({CAPTIONS[2]!r}) for e in text.encoders(config.load('smoke'))];"
        "sys.stdout.buffer.write(b''.join(e.text_emb.tobytes() + e.tokens.tobytes() for e in emb))"
    )
    done = subprocess.run(
        (sys.executable, "-c", program),
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    here = [encoder.encode(CAPTIONS[2]) for encoder in encoders.values()]
    assert done.stdout.endswith(b"".join(e.text_emb.tobytes() + e.tokens.tobytes() for e in here))


@pytest.mark.parametrize(("name", "unit"), [("ul2", "word "), ("metaclip", "word "), ("byt5", "w")])
def test_long_caption_is_cut_with_a_warning_that_names_it(encoders, name, unit):
    encoder = encoders[name]
    longest, longer = unit * (encoder.max_tokens - 1), unit * (encoder.max_tokens + 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = encoder.encode(longest)
    with pytest.warns(UserWarning, match=f"{name} takes {encoder.max_tokens} tokens; cut: {longer!r}"):
        cut = encoder.encode(longer)
    assert cut.mask.all()
    assert np.array_equal(cut.tokens, fits.tokens)  # the end of the text is kept


# --- the run ---


@pytest.fixture
def encoded(tmp_path, monkeypatch):
    """A finished text run over a data run of three captions, one of them in both splits."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke")
    data, run = runs.find(params, "data"), runs.find(params, "text")
    root = tmp_path / "smoke" / "data"
    clips = [Clip(root / f"{i}.mp4", caption=caption) for i, caption in enumerate(CAPTIONS)]
    with runs.record(data):
        save_index(data.folder / "mixkit_train.csv", clips, root)
        save_index(data.folder / "mixkit_val.csv", clips[:1], root)
    with runs.record(run):
        text.encode(run)
    return run


def test_every_caption_and_the_empty_one_are_encoded_once(encoded):
    with (encoded.folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == ["", *sorted(CAPTIONS)]
    for encoder in text.ENCODERS:
        names = {path.name for path in (encoded.folder / encoder).iterdir()}
        assert names == {row["file"] for row in rows}


def test_loaded_embeddings_keep_the_order_asked_for(encoded, encoders):
    asked = [CAPTIONS[1], "", CAPTIONS[0], CAPTIONS[1]]
    *embeddings, keep = text.load_embeddings(encoded, asked)
    assert [array.shape for array in embeddings] == [(4, 24, 64), (4, 16, 48), (4, 32, 32)]
    assert keep.shape == (4, 24 + 16 + 32)
    for array, encoder in zip(embeddings, encoders.values(), strict=True):
        assert np.array_equal(array, np.stack([encoder.encode(caption).text_emb for caption in asked]))
    masks = [np.concatenate([encoder.encode(caption).mask for encoder in encoders.values()]) for caption in asked]
    assert np.array_equal(keep, np.stack(masks))


def test_files_hold_what_the_readme_of_the_cache_says(encoded, encoders):
    with np.load(text.caption_file(encoded.folder, "byt5", CAPTIONS[2]), allow_pickle=False) as file:
        assert set(file.files) == {"text_emb", "mask", "tokens"}
        assert np.array_equal(file["tokens"], encoders["byt5"].encode(CAPTIONS[2]).tokens)


def test_stand_ins_are_labelled_as_such(encoded):
    assert (encoded.folder / "summary.json").read_text().count("stand-in") == 3


def test_cut_run_keeps_what_it_has(encoded):
    path = text.caption_file(encoded.folder, "ul2", "")
    kept = path.stat().st_mtime_ns
    missing = text.caption_file(encoded.folder, "ul2", CAPTIONS[0])
    missing.unlink()
    text.encode(encoded)
    assert missing.exists()
    assert path.stat().st_mtime_ns == kept
