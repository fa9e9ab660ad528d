import pytest

from moviegen import config
from moviegen.report.encoders import TITLES, text_encoders
from tests.report.making import words


def test_stand_ins_are_named_where_no_folder_is(params):
    shown = words(text_encoders(params))
    assert "in the place of UL2, MetaCLIP and ByT5 there are seeded, frozen stand-ins" in shown
    assert "they understand nothing" in shown
    assert "read from" not in shown


def test_folders_are_named_and_escaped():
    one = words(text_encoders(config.load("tiny", {"text.metaclip.folder": "weights/a<b"})))
    assert "in the place of UL2 and ByT5 there are" in one
    assert "MetaCLIP is read from weights/a&lt;b." in one
    folders = {f"text.{name}.folder": f"weights/{name}" for name in ("ul2", "metaclip", "byt5")}
    every = words(text_encoders(config.load("tiny", folders)))
    assert "stand-in" not in every.lower()
    assert all(f"{title} is read from weights/{title.lower()}." in every for title in ("UL2", "MetaCLIP", "ByT5"))


@pytest.mark.parametrize("scale", ["smoke", "tiny", "1B", "5B", "30B"])
def test_every_scale_says_what_its_encoders_are(scale):
    params = config.load(scale)
    shown = words(text_encoders(params))
    for name, encoder in params.text:
        assert (f"{TITLES[name]} is read from {encoder.folder}." in shown) == bool(encoder.folder)
