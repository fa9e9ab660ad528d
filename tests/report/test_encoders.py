import pytest

from moviegen import config
from moviegen.report.encoders import TITLES, text_encoders
from tests.report.making import words


def test_stand_ins_are_named_where_no_folder_is():
    shown = words(text_encoders(config.load("smoke")))
    assert "in the place of UL2, MetaCLIP and ByT5 there are seeded, frozen stand-ins" in shown
    assert "they understand nothing" in shown
    assert "read from" not in shown and "nothing in this recipe" not in shown


def test_folders_are_named_and_escaped():
    one = words(text_encoders(config.load("smoke", {"text.metaclip.folder": "weights/a<b"})))
    assert "in the place of UL2 and ByT5 there are" in one
    assert "MetaCLIP is read from weights/a&lt;b." in one
    folders = {f"text.{name}.folder": f"weights/{name}" for name in ("ul2", "metaclip", "byt5")}
    every = words(text_encoders(config.load("smoke", folders)))
    assert "stand-in" not in every.lower()
    assert all(f"{title} is read from weights/{title.lower()}." in every for title in ("UL2", "MetaCLIP", "ByT5"))


def test_an_encoder_that_was_fetched_is_named_and_so_are_those_that_are_left_out():
    shown = words(text_encoders(config.load("smoke", {"text.ul2.folder": "asset:minilm", "text.byt5": None})))
    assert "in the place of MetaCLIP there are seeded, frozen stand-ins" in shown
    assert "In the place of UL2 there is the sentence encoder all-MiniLM-L6-v2" in shown
    assert "Of ByT5 there is nothing in this recipe." in shown
    assert "read from" not in shown


@pytest.mark.parametrize("scale", ["smoke", "tiny", "1B", "5B", "30B"])
def test_every_scale_says_what_its_encoders_are(scale):
    """Each of the three is a stand-in, in a folder, fetched, or left out."""
    params = config.load(scale)
    stand_ins, *others = words(text_encoders(params)).replace("Stand-ins:", "").partition("They tell captions apart")
    for name, title in TITLES.items():
        encoder, rest = params.text.encoders.get(name), "".join(others) or stand_ins
        assert (title in stand_ins and "stand-ins" in stand_ins) == (encoder is not None and not encoder.folder)
        if encoder is None:
            assert title in rest.partition("Of ")[2].partition(" there is nothing in this recipe")[0]
        elif encoder.folder.startswith(config.ASSET):
            assert f"In the place of {title} there is " in rest
        elif encoder.folder:
            assert f"{title} is read from {encoder.folder}." in rest
