"""What several pages say of the text encoders: written from the parameters, never by hand."""

from __future__ import annotations

import html

from IPython.display import HTML

from moviegen.config import ASSET, Params
from moviegen.data import assets
from moviegen.report import markup
from moviegen.report.wording import listed

TITLES = {"ul2": "UL2", "metaclip": "MetaCLIP", "byt5": "ByT5"}


def text_encoders(params: Params) -> HTML:
    """Which of the text encoders are stand-ins, where the others were read from, and which are left out."""
    folders = {TITLES[name]: encoder.folder for name, encoder in params.text.encoders.items()}
    stand_ins = [title for title, folder in folders.items() if not folder]
    absent = [title for name, title in TITLES.items() if name not in params.text.encoders]
    sentences = []
    if stand_ins:
        sentences.append(
            f"<b>Stand-ins:</b> in the place of {listed(stand_ins)} there are seeded, frozen stand-ins that give each "
            "token a fixed random vector. They tell captions apart; they understand nothing."
        )
    for title, folder in folders.items():
        if folder.startswith(ASSET):
            sentences.append(f"In the place of {title} there is {html.escape(assets.of(folder).what)}.")
        elif folder:
            sentences.append(f"{title} is read from <code>{html.escape(folder)}</code>.")
    if absent:
        sentences.append(f"Of {listed(absent)} there is nothing in this recipe.")
    return markup.note(" ".join(sentences))
