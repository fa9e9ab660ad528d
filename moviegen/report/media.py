"""Videos and stills of a page."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image

from moviegen.config import project_root
from moviegen.data import videos
from moviegen.data.prepare import data_folder
from moviegen.report import markup, results
from moviegen.runs import Run

STILL_HEIGHT = 240  # twice the height it is shown at: sharp on dense screens


def video(path: Path, caption: str) -> str:
    """A player with its caption.

    The address is relative to notebooks/, where JupyterLab finds it; publishing copies the file into the site.
    """
    address = quote(os.path.relpath(path, project_root() / "notebooks"))
    return (
        f'<figure class="clip"><video src="{address}" controls loop muted playsinline preload="metadata"></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def reconstructions(run: Run | None, data_set: str) -> HTML:
    """Originals (left) beside their reconstructions (right): worst, median and best clip of a data set."""
    title = f"Original (left) and reconstruction (right), held-out {data_set} clips"
    listed = results.read_csv(run, "videos.csv")
    if run is None or listed is None or listed[listed["data_set"] == data_set].empty:
        return markup.missing(title)
    players = [
        video(
            run.folder / row.file, f"{row.kind}: {row.label}, {row.model}, PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.3f}"
        )
        for row in listed[listed["data_set"] == data_set].itertuples()
    ]
    return markup.card(_grid(players), title, [run])


def samples(run: Run | None, split: str) -> HTML:
    """Generated clips beside the clip of the same caption."""
    titles = {"val": "captions the model has not seen", "train": "captions it was trained on"}
    title = f"Generated clips beside the clip of the same caption: {titles[split]}"
    listed = results.read_csv(run, "samples.csv")
    if run is None or listed is None or listed[listed["split"] == split].empty:
        return markup.missing(title)
    pairs = []
    for row in listed[listed["split"] == split].itertuples():
        both = video(run.folder / row.generated, f"generated, seed {row.seed}")
        both += video(run.folder / row.reference, "the clip of this caption")
        pairs.append(f'<div class="pair">{both}<p class="prompt">{html.escape(row.caption)}</p></div>')
    return markup.card("".join(pairs), title, [run])


def stills(run: Run | None, index: str, count: int, caption: str, frames: int = 6) -> HTML:
    """Frames of a few clips of an index file, evenly spaced in time: one strip a clip."""
    listed = results.read_csv(run, index)
    if run is None or listed is None or listed.empty:
        return markup.missing(caption)
    folder = data_folder(run.params)
    strips = [
        f'<figure class="strip">{strip(folder / row.path, row.frames, frames)}'
        f"<figcaption>{html.escape(row.caption or row.label)}</figcaption></figure>"
        for row in _spread(listed, count).itertuples()
    ]
    return markup.card("".join(strips), caption, [run])


def strip(path: Path, length: int, frames: int) -> str:
    """Evenly spaced frames of one clip, side by side."""
    try:
        images = videos.read_frames(path, np.linspace(0, length - 1, frames).round().astype(int).tolist())
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
    return markup.image(f"data:image/jpeg;base64,{data}", f"{frames} frames of {path.name}", "photo")


def _spread(listed: pd.DataFrame, count: int) -> pd.DataFrame:
    """Evenly spaced rows: neighbours in an index are often clips of one group."""
    return listed.iloc[np.unique(np.linspace(0, len(listed) - 1, count).round().astype(int))]


def _grid(items: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(items)}</div>'
