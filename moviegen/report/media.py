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

STILL_HEIGHT = 240  # twice the height it is shown at: sharp on dense screens


def video(path: Path, caption: str) -> str:
    """A player with its caption.

    The address is relative to notebooks/, where JupyterLab finds it; publishing copies the file into the site, and
    shows its first frame until it is played.
    """
    address, label = quote(os.path.relpath(path, project_root() / "notebooks")), html.escape(caption)
    return (
        f'<figure class="clip"><video src="{address}" aria-label="{label}" controls loop muted playsinline '
        'preload="metadata"></video>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def strip(clip: clips.Clip, frames: int) -> str:
    """Evenly spaced frames of one clip, side by side."""
    try:
        images = clips.read(clip, np.linspace(0, clip.frames - 1, frames).round().astype(int).tolist())
    except videos.BrokenVideo as error:
        return str(markup.note(html.escape(str(error))).data)
    scale = STILL_HEIGHT / images.shape[1]
    size = (round(images.shape[2] * scale), STILL_HEIGHT)
    row = np.concatenate(
        [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images], 1
    )
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return markup.image(f"data:image/jpeg;base64,{data}", f"{frames} frames of {clip.path.name}", "photo")
