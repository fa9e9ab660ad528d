"""Videos and stills as HTML."""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from moviegen.config import project_root
from moviegen.data import clips, videos
from moviegen.report import markup
from moviegen.report.results import DamagedFile

STILL_HEIGHT = 240  # twice the height it is shown at: sharp on dense screens


def video(path: Path, caption: str, seen: str = "") -> str:
    """A player with its caption; `seen`: what there is to see, where the caption does not say it.

    The address is relative to notebooks/, where JupyterLab finds it; publishing copies the file into the site, and
    shows its first frame until it is played.
    """
    address = quote(os.path.relpath(path, project_root() / "notebooks"))
    player = (
        f'<video src="{address}" aria-label="{html.escape(seen or caption)}" controls loop muted '
        'playsinline preload="metadata"></video>'
    )
    return clip(player, html.escape(caption))


def clip(content: str, caption: str) -> str:
    """A player or pictures with a caption, both HTML."""
    return f'<figure class="clip">{content}<figcaption>{caption}</figcaption></figure>'


def tile(image: np.ndarray, caption: str, seen: str) -> str:
    """An image with its caption, as `video` has them."""
    return clip(picture(image, seen), html.escape(caption))


def embedded(path: Path, caption: str) -> str:
    """The same of a file that the page itself holds, a clip or an image, which plays at once."""
    label, data = html.escape(caption), base64.b64encode(path.read_bytes()).decode()
    if path.suffix == ".mp4":
        address = f"data:video/mp4;base64,{data}"
        shown = f'<video src="{address}" aria-label="{label}" controls autoplay loop muted playsinline></video>'
    else:
        shown = markup.image(f"data:image/{path.suffix[1:]};base64,{data}", caption, "photo")
    return clip(shown, label)


def strip(of: clips.Clip, frames: int) -> str:
    """Evenly spaced frames of one clip, side by side."""
    try:
        images = clips.read(of, np.linspace(0, of.frames - 1, frames).round().astype(int).tolist())
    except videos.BrokenVideo as error:
        return str(markup.note(html.escape(str(error))).data)
    scale = STILL_HEIGHT / images.shape[1]
    size = (round(images.shape[2] * scale), STILL_HEIGHT)
    row = np.concatenate(
        [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images], 1
    )
    return _photo(row, f"{frames} frames of {of.path.name}", "jpeg", quality=88)


def photograph(path: Path, alt: str) -> str:
    """A picture that a program kept, smaller by what eyes do not see.

    Raises:
        DamagedFile: it is damaged.
    """
    return _photo(pixels(path), alt, "jpeg", quality=88)


def pixels(path: Path) -> np.ndarray:
    """Those of a picture that a program kept, uint8 (H, W, 3).

    Raises:
        DamagedFile: it is damaged, or not there.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own, of a PNG the second
        run = next((one for one in path.parents if one.parent.name == "runs"), path.parent)
        raise DamagedFile(f"{path} cannot be read ({error}): remove {run} to have it made again") from None


def picture(image: np.ndarray, alt: str, height: int = STILL_HEIGHT) -> str:
    """An image, uint8 (H, W, 3), whose pixels stay what they are: enlarged, where it is lower, by repeating them."""
    times = max(1, round(height / image.shape[0]))
    return _photo(image.repeat(times, 0).repeat(times, 1), alt, "png", optimize=True)


def _photo(image: np.ndarray, alt: str, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return markup.image(f"data:image/{kind};base64,{data}", alt, "photo")
