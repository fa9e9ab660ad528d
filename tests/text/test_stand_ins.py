"""The stand-ins for UL2, MetaCLIP and ByT5: what they see of a caption."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from moviegen import config
from moviegen.text.encoders import encoders
from moviegen.text.stand_ins import StandIn

ROOT = Path(__file__).parents[2]
CAPTIONS = ("a red car turns left", "a dog", "Ein Bär läuft")


@pytest.fixture
def stand_ins():
    return {encoder.name: encoder for encoder in encoders(config.load("smoke"))}


def encode(encoder, caption):
    (one,) = encoder.encode([caption])
    return one


def hits(embedding):
    return int(embedding.mask.sum())


def test_encoders_stand_in_the_transformers_order():
    params = config.load("smoke")
    found = [(e.name, e.width, e.max_tokens) for e in encoders(params)]
    assert found == [("ul2", 64, 24), ("metaclip", 48, 16), ("byt5", 32, 32)]
    assert tuple(e.width for e in encoders(params)) == params.dit_config(1).text_widths


@pytest.mark.parametrize("name", config.TEXT_ENCODERS)
@pytest.mark.parametrize("caption", ["", *CAPTIONS])
def test_shapes_and_padding(stand_ins, name, caption):
    encoder = stand_ins[name]
    one = encode(encoder, caption)
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
def test_tokens_are_words_or_utf8_bytes_and_an_end(stand_ins, name, tokens):
    # "Ein Bär läuft" is 13 characters and 15 bytes
    assert [hits(encode(stand_ins[name], caption)) - 1 for caption in ("", *CAPTIONS)] == tokens


def test_byt5_sees_the_bytes_of_a_character(stand_ins):
    umlaut, twice = encode(stand_ins["byt5"], "ä"), encode(stand_ins["byt5"], "ää")
    assert hits(umlaut) == 2 + 1
    assert (twice.tokens[:2] == umlaut.tokens[:2]).all()
    assert (twice.tokens[2:4] == umlaut.tokens[:2]).all()
    # ä is C3 A4, ö is C3 B6
    other = encode(stand_ins["byt5"], "ö")
    assert other.tokens[0] == umlaut.tokens[0]
    assert other.tokens[1] != umlaut.tokens[1]


def test_byt5_sees_capitals_and_the_others_do_not(stand_ins):
    for name, same in (("ul2", True), ("metaclip", True), ("byt5", False)):
        upper, lower = encode(stand_ins[name], "A Dog"), encode(stand_ins[name], "a dog")
        assert (upper.tokens == lower.tokens).all() == same


def test_empty_caption_is_the_end_alone(stand_ins):
    for encoder in stand_ins.values():
        nothing, dog = encode(encoder, ""), encode(encoder, "dog")
        assert hits(nothing) == 1
        assert nothing.tokens[0] == dog.tokens[hits(dog) - 1]


@pytest.mark.parametrize("name", config.TEXT_ENCODERS)
def test_captions_are_told_apart(stand_ins, name):
    captions = (*CAPTIONS, "", "a dog a", "dog a", "left turns a red car")
    embeddings = [encode(stand_ins[name], caption).text_emb for caption in captions]
    for i, one in enumerate(embeddings):
        for other in embeddings[:i]:
            assert np.abs(one - other).max() > 0.1


def test_encoders_do_not_share_vectors(stand_ins):
    one, other = encode(stand_ins["ul2"], "a dog"), encode(stand_ins["metaclip"], "a dog")
    assert (one.tokens[:3] == other.tokens[:3]).all()
    assert np.abs(one.text_emb[0, :48] - other.text_emb[0]).max() > 0.1


def test_seed_decides_the_vectors():
    one = StandIn("ul2", 8, 4, seed=1)
    assert np.array_equal(encode(one, "a").text_emb, encode(StandIn("ul2", 8, 4, seed=1), "a").text_emb)
    assert np.abs(encode(one, "a").text_emb - encode(StandIn("ul2", 8, 4, seed=2), "a").text_emb).max() > 0.1


def test_place_of_a_word_counts(stand_ins):
    twice = encode(stand_ins["ul2"], "dog dog").text_emb
    assert np.abs(twice[0] - twice[1]).max() > 0.05
    # and is a matter of the place alone: the same shift for every word
    again = encode(stand_ins["ul2"], "cat cat").text_emb
    np.testing.assert_allclose(twice[1] - twice[0], again[1] - again[0], atol=1e-5)


def test_same_embedding_in_another_process(stand_ins):
    program = (
        "import sys; from moviegen import config; from moviegen.text.encoders import encoders;"
        f"emb = [next(e.encode([{CAPTIONS[2]!r}])) for e in encoders(config.load('smoke'))];"
        "sys.stdout.buffer.write(b''.join(e.text_emb.tobytes() + e.tokens.tobytes() for e in emb))"
    )
    done = subprocess.run(
        (sys.executable, "-c", program),
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    here = [encode(encoder, CAPTIONS[2]) for encoder in stand_ins.values()]
    assert done.stdout.endswith(b"".join(e.text_emb.tobytes() + e.tokens.tobytes() for e in here))


@pytest.mark.parametrize(("name", "unit"), [("ul2", "word "), ("metaclip", "word "), ("byt5", "w")])
def test_long_caption_is_cut_with_a_warning_that_names_it(stand_ins, name, unit):
    encoder = stand_ins[name]
    longest, longer = unit * (encoder.max_tokens - 1), unit * (encoder.max_tokens + 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = encode(encoder, longest)
    with pytest.warns(UserWarning, match=f"{name} takes {encoder.max_tokens} tokens; cut: {longer!r}"):
        cut = encode(encoder, longer)
    assert cut.mask.all()
    assert np.array_equal(cut.tokens, fits.tokens)  # the end of the text is kept


def test_hash_covers_all_that_the_vectors_follow_from():
    base = {"name": "ul2", "width": 8, "max_tokens": 4, "seed": 1}
    marks = {StandIn(**base).sha256(), StandIn(**base).sha256()}
    assert len(marks) == 1
    for change in ({"name": "byt5"}, {"width": 9}, {"max_tokens": 5}, {"seed": 2}):
        marks.add(StandIn(**base | change).sha256())
    assert len(marks) == 5
    assert all(len(mark) == 64 for mark in marks)
