"""The few pieces of HTML every section is made of: cards around figures and tables, notes, lines about runs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML

from moviegen.runs import Run

NOT_RUN = "not run here"


def card(content: str, caption: str, runs: Iterable[Run | None] = ()) -> HTML:
    """A figure or table with its caption and the runs its numbers come from.

    The appendix finds those runs again by `data-runs`, so what it lists is what was shown.
    """
    names = list(dict.fromkeys(run.name for run in runs if run))
    source = f'<span class="source">from {", ".join(map(run_link, names))}</span>' if names else ""
    return HTML(
        f'<figure class="card" data-runs="{" ".join(names)}">{content}'
        f'<figcaption><span class="title">{html.escape(caption)}</span> {source}</figcaption></figure>'
    )


def run_link(name: str) -> str:
    """A run's id, linked to its entry in the appendix."""
    return f'<a class="run" href="provenance.html#{html.escape(name)}">{html.escape(name)}</a>'


def note(text: str) -> HTML:
    """A remark set apart from the prose; `text` is HTML."""
    return HTML(f'<p class="note">{text}</p>')


def missing(what: str) -> HTML:
    """What stands in the place of a figure whose run is not there."""
    return note(f"<b>{html.escape(what)}:</b> {NOT_RUN}.")


def table(
    rows: Sequence[Mapping[str, Any]], caption: str, runs: Iterable[Run | None] = (), raw: Iterable[str] = ()
) -> HTML:
    """A table in a card; numbers are shown as they are, so format them first. Columns in `raw` hold HTML."""
    return card(bare_table(rows, raw), caption, runs)


def bare_table(rows: Sequence[Mapping[str, Any]], raw: Iterable[str] = ()) -> str:
    """A table without a caption; it scrolls where the page is narrower."""
    frame = pd.DataFrame(list(rows))
    for column in frame.columns.difference(list(raw)):
        frame[column] = frame[column].map(lambda value: html.escape(str(value)))
    with pd.option_context("display.max_colwidth", None):
        content = frame.to_html(index=False, escape=False, border=0, classes="table", justify="left")
    return f'<div class="scroll">{content}</div>'


def image(data: str, alt: str, kind: str) -> str:
    """An `<img>` of a data URI; on a dark page the site adapts it by its `kind`, plot or photo, JupyterLab does not."""
    return f'<img class="{kind}" style="background: white" alt="{html.escape(alt)}" src="{data}">'
