import base64
import io
import re

import numpy as np
from PIL import Image

from moviegen.report import wipe


def pictures(markup):
    """The images of a piece of HTML."""
    found = re.findall(r"base64,([^\"]+)", markup)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_without_scripts_both_pictures_are_seen_and_no_slider():
    dark, light = np.zeros((120, 80, 3), np.uint8), np.full((120, 80, 3), 200, np.uint8)
    shown = wipe.wipe(dark, light, ("original", "reconstruction"), "a <clip>", scale=200)
    first, second, error = pictures(shown)
    assert first.max() == 0 and second.min() == 200
    assert (error == wipe.error_map(dark, light, 200).repeat(2, 0).repeat(2, 1)).all()
    assert re.search(r'<label hidden>original <input type="range" [^>]*> reconstruction</label>', shown)
    assert 'style="display' not in shown and "a &lt;clip&gt;" in shown


def test_the_difference_is_brightest_where_it_is_largest():
    original, restored = np.zeros((1, 3, 3), np.uint8), np.zeros((1, 3, 3), np.uint8)
    restored[0, 1], restored[0, 2] = (30, 0, 0), (90, 90, 90)
    assert wipe.differences(original, restored).tolist() == [[0, 10, 90]]
    brightness = wipe.error_map(original, restored, scale=20).astype(int).sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert (
        wipe.error_map(original, restored, scale=20)[0, 2] == wipe.error_map(original, restored, scale=90)[0, 2]
    ).all()


def test_pages_of_many_wipes_set_each_up_once():
    assert ":not([data-ready])" in wipe.SCRIPT and "dataset.ready" in wipe.SCRIPT
