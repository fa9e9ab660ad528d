"""The data page: how many clips there are, which were set aside, and what they look like."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
from IPython.display import HTML

from moviegen.data.splits import data_folder
from moviegen.data.ucf101 import describe
from moviegen.report import markup, media, results
from moviegen.report.tables import table
from moviegen.runs import Run


def clips(run: Run | None) -> HTML:
    """How many clips there are, and how many could not be read."""
    summary = results.read_json(run, "summary.json")
    if summary is None:
        return markup.missing("Clips")
    ucf101, mixkit = summary["ucf101"], summary["mixkit"]
    classes = f"{ucf101['classes']} classes"
    rows = [
        {"data set": "UCF-101", "training": ucf101["train"], "held out": f"{ucf101['test']} (test)", "note": classes},
        {"data set": "mixkit", "training": mixkit["train"], "held out": f"{mixkit['val']} (validation)", "note": ""},
        {"data set": "set aside", "training": "-", "held out": "-", "note": f"{summary['quarantined']} unreadable"},
    ]
    if summary["official"]:
        note = describe(summary["official"])
        rows.insert(1, {"data set": "UCF-101 as published", "training": "-", "held out": "-", "note": note})
    return table(rows, f"Clips of {summary['source']}", [run])


def quarantine(run: Run | None) -> HTML:
    """The files that were set aside and why."""
    files = results.read_csv(run, "quarantine.csv")
    if files is None:
        return markup.missing("Files set aside")
    if files.empty:
        return markup.note("No file had to be set aside.")
    return table(files.to_dict("records"), "Files set aside", [run])


def stills(run: Run | None, index: str, count: int, caption: str, frames: int = 6) -> HTML:
    """Frames of a few clips of an index file, evenly spaced in time: one strip a clip."""
    rows = results.read_csv(run, index)
    if run is None or rows is None or rows.empty:
        return markup.missing(caption)
    folder = data_folder(run.params)
    strips = [
        f'<figure class="strip">{media.strip(folder / row.path, row.frames, frames)}'
        f"<figcaption>{html.escape(row.caption or row.label)}</figcaption></figure>"
        for row in _spread(rows, count).itertuples()
    ]
    return markup.card("".join(strips), caption, [run])


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Evenly spaced rows: neighbours in an index are often clips of one group."""
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
