"""Cards: what is read of a description, what is refused and with which words, and what the shipped ones say."""

from pathlib import Path

import pytest
import yaml

from moviegen.config import ConfigError
from moviegen.plan.cards import ARITHMETIC, BANDWIDTHS, BYTES, find_card, quantity, read_cards

DESCRIBED = {
    "memory": "48 GB",
    "peak": {"bfloat16": "100 TFLOP/s"},
    "memory_bandwidth": "0.9 TB/s",
    "link": "70 GB/s",
    "network": "200 Gbit/s",
    "storage": "2 GB/s",
    "cards_a_host": 8,
    "source": "a test",
}


def written(folder, changes=None, without=()):
    fields = {name: value for name, value in (DESCRIBED | (changes or {})).items() if name not in without}
    path = Path(folder) / "cards.yaml"
    path.write_text(yaml.safe_dump({"mine": fields}))
    return path


def refusal(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("64 GB", BYTES, 64e9),
        ("64GiB", BYTES, 2**36),
        ("376 TFLOP/s", ARITHMETIC, 376e12),
        ("1.6 TB/s", BANDWIDTHS, 1.6e12),
        ("200 Gbit/s", BANDWIDTHS, 25e9),
        ("not published", BYTES, None),
    ],
)
def test_numbers_with_units(text, units, value):
    assert quantity(text, units, "there") == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (64, "there: 64 has no unit: write 64 and one of MB, GB"),
        (1.5, "1.5 has no unit"),
        ("64", "'64' is not a number above 0 and one of"),
        ("64 GB/s", "'64 GB/s' is not in one of MB, GB, TB, MiB, GiB, TiB; did you mean 'GB'?"),
        ("6.4.1 GB", "is not a number"),
        ("-1 GB", "is not a number"),
        ("0 GB", "is not a number above 0"),
        ("", "is not a number"),
        (None, "is not a number"),
        (True, "has no unit"),
    ],
)
def test_numbers_without_units_are_refused(value, words):
    assert words in refusal(quantity, value, BYTES, "there")


def test_a_description_is_read(tmp_path):
    card = find_card("mine", written(tmp_path))
    assert (card.memory, card.flops("bfloat16"), card.memory_bandwidth) == (48e9, 100e12, 0.9e12)
    assert card.between_hosts() == 25e9
    assert card.source == "a test"


def test_two_cards_of_a_host_have_one_wire(tmp_path):
    card = find_card("mine", written(tmp_path))
    assert [card.link_among(cards) for cards in (1, 2, 8)] == [0, 10e9, 70e9]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": 64}, "mine.memory: 64 has no unit"),
        ({"peak": {"bfloat16": 376e12}}, "mine.peak.bfloat16: 376000000000000.0 has no unit"),
        ({"peak": {"bf16": "376 TFLOP/s"}}, "mine.peak.bf16 is not one of float32, float16, bfloat16"),
        ({"peak": "376 TFLOP/s"}, "mine.peak is not a description"),
        ({"link": "196 TFLOP/s"}, "mine.link: '196 TFLOP/s' is not in one of MB/s"),
        ({"memmory": "64 GB"}, "mine.memmory is not one of memory"),
        ({"memmory": "64 GB"}, "did you mean 'memory'?"),
        ({"cards_a_host": "8 cards"}, "mine.cards_a_host: '8 cards' is not a number of cards"),
        ({"cards_a_host": 1}, "2 or more"),
        ({"source": " "}, "mine.source: say where the numbers are from"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, changes, words):
    path = written(tmp_path, changes)
    assert words in refusal(read_cards, path)
    assert str(path) in refusal(read_cards, path)


@pytest.mark.parametrize("field", DESCRIBED)
def test_what_is_missing_is_named(tmp_path, field):
    assert f"mine.{field} is missing: give it, or `not published`" in refusal(
        read_cards, written(tmp_path, without=(field,))
    )


def test_what_nobody_published_is_said_when_it_is_needed(tmp_path):
    card = find_card("mine", written(tmp_path, {"network": "not published"}))
    assert card.network is None
    assert "card mine: network is not published" in refusal(card.between_hosts)
    assert "card mine: peak.float32 is not published" in refusal(card.flops, "float32")


def test_an_unknown_card_lists_the_known_ones_and_how_to_describe_it():
    message = refusal(find_card, "ascend-910")
    assert "is not one of ascend-910b, ascend-910b-313t, ascend-910b-280t; did you mean 'ascend-910b'?" in message
    assert "describe it in params/base/cards.yaml" in message
    assert "memory_bandwidth" in message


@pytest.mark.parametrize("text", ["", "- a", "mine: 3", "mine: [", "a: 1\na: 2"])
def test_a_file_without_cards_is_refused(tmp_path, text):
    path = tmp_path / "cards.yaml"
    path.write_text(text)
    assert str(path) in refusal(read_cards, path)
    assert str(tmp_path / "none.yaml") in refusal(read_cards, tmp_path / "none.yaml")


@pytest.mark.parametrize("card", read_cards().values(), ids=read_cards())
def test_shipped_cards(card):
    assert card.memory == 64 * 2**30
    assert 245e12 < card.flops("bfloat16") <= 376e12
    assert card.flops("float32") < card.flops("bfloat16")
    assert card.link_among(8) * 2 == 392e9
    assert "white paper" in card.source or "Simulator" in card.source
