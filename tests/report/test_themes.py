"""Colours: told apart by all kinds of colour vision, and read on light and on dark pages."""

import itertools
import re

import numpy as np
import pytest
from pygments.styles import get_style_by_name
from skimage.color import deltaE_ciede2000, rgb2lab

from moviegen.report import curves, themes
from moviegen.report.pages import cost_memory, cost_roofline, parallelism, sampling
from moviegen.report.plots import INK, PALETTE
from moviegen.report.publish import TEMPLATE

# Machado, Oliveira and Fernandes 2009, severity 1: what is left of linear red, green and blue
VISION = {
    "all": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TOLD_APART = 9  # CIEDE2000: of patches beside each other 1 is just seen
READ = 4.5  # contrast of text in the Web Content Accessibility Guidelines


def seen(color, vision):
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    left = np.clip(VISION[vision] @ linear, 0, 1)
    return rgb2lab(np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055))


DRAWN = {
    "palette": PALETTE,
    "media": [strong for _, strong in curves.COLORS],
    "schedules": [*sampling.COLORS.values(), sampling.GATED_COLOR],
    "parts of memory": cost_memory.COLORS,
    "stages of ZeRO": parallelism.SHADES,
    "sizes": list(cost_roofline.COLORS.values()),
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("drawn", DRAWN)
def test_colours_of_a_figure_are_told_apart(drawn, vision):
    for colors in (DRAWN[drawn], [themes.on_dark(color) for color in DRAWN[drawn]]):
        for one, other in itertools.combinations(colors, 2):
            assert deltaE_ciede2000(seen(one, vision), seen(other, vision)) > TOLD_APART, (one, other)


def test_the_palette_stands_out_from_both_pages():
    for color in PALETTE:
        assert themes.contrast(color, themes.CARD) >= themes.GRAPHIC_CONTRAST
        assert themes.contrast(themes.on_dark(color), themes.DARK_CARD) >= themes.GRAPHIC_CONTRAST


def test_shades_of_a_ramp_stand_out_from_both_pages_and_grow_stronger():
    for shades, card in (
        (parallelism.SHADES, themes.CARD),
        ([themes.on_dark(shade) for shade in parallelism.SHADES], themes.DARK_CARD),
    ):
        contrasts = [themes.contrast(shade, card) for shade in shades]
        assert contrasts[0] >= themes.GRAPHIC_CONTRAST
        assert contrasts == sorted(contrasts)


def test_greys_stand_out_from_a_dark_page_as_from_a_light_one():
    for grey in ("#8a9099", "#e3e6ea", "#f1f2f4", "#ffffff"):
        on_dark = themes.contrast(themes.on_dark(grey), themes.DARK_CARD)
        assert on_dark == pytest.approx(themes.contrast(grey, themes.CARD), rel=0.05)


def test_contrast_is_that_of_the_guidelines():
    assert themes.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert themes.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_ink_takes_the_colour_of_the_text():
    style = themes.in_both_themes(f"fill: {INK}; stroke: {PALETTE[0]}; clip-path: url(#p1234567)")
    assert style == f"fill: currentColor; stroke: light-dark({PALETTE[0]}, {PALETTE[0]}); clip-path: url(#p1234567)"


def test_text_and_code_are_read_on_either_page():
    style = (TEMPLATE / "style.css").read_text(encoding="utf-8")
    named = dict(re.findall(r"--(\w+(?:-\w+)?): light-dark\((#\w{6}, #\w{6})\)", style))
    pairs = {name: pair.split(", ") for name, pair in named.items()}
    assert pairs["card"] == [themes.CARD, themes.DARK_CARD]
    for text, ground in itertools.product(("text", "quiet", "accent"), ("page", "card", "side", "code", "note")):
        for one, other in zip(pairs[text], pairs[ground], strict=True):
            assert themes.contrast(one, other) >= READ, (text, ground)
    for pygments, ground in zip((themes.LIGHT_CODE, themes.DARK_CODE), pairs["code"], strict=True):
        for token, look in get_style_by_name(pygments):
            if look["color"] and "Generic" not in str(token) and "Error" not in str(token):
                assert themes.contrast(f"#{look['color']}", ground) >= READ, (pygments, token)
