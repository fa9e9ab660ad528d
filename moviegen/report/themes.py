"""Light and dark: the stylesheet, and the colours of drawings in both."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

CARD, DARK_CARD = "#ffffff", "#1c1f23"  # what drawings lie on; style.css names them too
GRAPHIC_CONTRAST = 3  # what the Web Content Accessibility Guidelines ask of the parts of a figure
STRONG = 25  # the chroma in CIELAB from which a colour is no tinted grey
LIGHT_CODE, DARK_CODE = "xcode", "zenburn"  # of Pygments' styles those that are read most easily on either
_COLOR = re.compile(r"#[0-9a-f]{6}\b")


def stylesheet(template: Path) -> str:
    """The template's style and the colours of code, light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style=LIGHT_CODE).get_style_defs(".highlight")
    dark = HtmlFormatter(style=DARK_CODE)
    asked, chosen = (
        dark.get_style_defs(f":root{mode} .highlight") for mode in (':not([data-theme="light"])', '[data-theme="dark"]')
    )
    by_system = f"@media screen and (prefers-color-scheme: dark) {{\n{asked}\n}}"
    by_switch = f"@media screen {{\n{chosen}\n}}"
    pages = (template / "style.css").read_text(encoding="utf-8")
    return f"{light}\n{by_system}\n{by_switch}\n{pages}"


def in_both_themes(style: str) -> str:
    """A drawing's CSS: ink is the text's colour, and every other colour has one for a dark page beside it."""
    from moviegen.report.plots import INK  # slow to import, as matplotlib is: not for a site that is up to date

    def both(match: re.Match[str]) -> str:
        color = match.group()
        return "currentColor" if color in (INK, "#000000") else f"light-dark({color}, {on_dark(color)})"

    return _COLOR.sub(both, style)


@functools.cache
def on_dark(color: str) -> str:
    """A colour of the same hue for a dark card.

    Strong colours that stand out from it stay what they are; all others stand out as much as `color` from a white card.
    """
    from skimage.color import lab2rgb, rgb2lab  # 1 s to import: not for a site that is up to date

    _, *hue = rgb2lab(_rgb(color))
    if math.hypot(*hue) > STRONG and contrast(color, DARK_CARD) >= GRAPHIC_CONTRAST:
        return color
    wanted = contrast(color, CARD) * (luminance(DARK_CARD) + 0.05) - 0.05
    lightness = 116 * min(wanted, 1) ** (1 / 3) - 16
    return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in lab2rgb([lightness, *hue]))


def contrast(one: str, other: str) -> float:
    """Of two colours, from 1 to 21, as the Web Content Accessibility Guidelines define it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in _rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(color: str) -> list[float]:
    return [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
