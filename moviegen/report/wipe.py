"""Two pictures of one size: side by side, or where scripts run one over the other, with a slider between them."""

from __future__ import annotations

import matplotlib
import numpy as np
from markupsafe import Markup

from moviegen.report import media
from moviegen.report.templates import filled

GREY_LEVELS = 255

# Without it nothing is hidden. It finds those that it has not seen yet, as a page holds it once a figure.
SCRIPT = """
<script>
document.querySelectorAll(".wipe:not([data-ready])").forEach(wipe => {
  const [below, above] = wipe.querySelectorAll(".wiped > *"), input = wipe.querySelector("input");
  const show = () => { above.style.clipPath = `inset(0 0 0 ${input.value}%)`; };
  wipe.dataset.ready = "";
  wipe.querySelector(".wiped").style.gridTemplateColumns = "1fr";
  for (const side of [below, above]) side.style.gridArea = "1 / 1";
  wipe.querySelectorAll(".wiped span").forEach(name => { name.hidden = true; });
  wipe.querySelector("label").hidden = false;
  input.addEventListener("input", show);
  show();
});
</script>
"""


def wipe(original: np.ndarray, restored: np.ndarray, names: tuple[str, str], caption: str, scale: float) -> str:
    """Two pictures, uint8 (H, W, 3), with a slider between them, and beside them where they differ.

    Args:
        names: what each is called.
        scale: grey levels of difference that are drawn in the brightest colour; see `largest_error`.
    """
    pictures = [media.picture(image, name) for image, name in zip((original, restored), names, strict=True)]
    error = media.picture(error_map(original, restored, scale), f"where {names[0]} and {names[1]} differ")
    sides = list(zip(map(Markup, pictures), names, strict=True))
    return filled("wipe", sides=sides, error=Markup(error), caption=caption)


def differences(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Mean absolute difference of a pixel's three colours, in grey levels: (H, W)."""
    return np.abs(original.astype(float) - restored).mean(-1)


def error_map(original: np.ndarray, restored: np.ndarray, scale: float) -> np.ndarray:
    """`differences` as a picture, uint8 (H, W, 3): black for none, bright yellow for `scale` and more."""
    share = (differences(original, restored) / scale).clip(0, 1)
    return (GREY_LEVELS * matplotlib.colormaps["inferno"](share)[..., :3]).round().astype(np.uint8)
