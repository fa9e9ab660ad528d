"""What tables share: rows become HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML

from moviegen.report import markup
from moviegen.runs import Run


def table(
    rows: Sequence[Mapping[str, Any]], caption: str, runs: Iterable[Run | None] = (), raw: Iterable[str] = ()
) -> HTML:
    """A table in a card; numbers are shown as they are, so format them first. Columns in `raw` hold HTML."""
    return markup.card(bare_table(rows, raw), caption, runs)


def bare_table(rows: Sequence[Mapping[str, Any]], raw: Iterable[str] = ()) -> str:
    """A table without a caption; it scrolls where the page is narrower."""
    frame = pd.DataFrame(list(rows))
    for column in frame.columns.difference(list(raw)):
        frame[column] = frame[column].map(_text)
    with pd.option_context("display.max_colwidth", None):
        frame = frame.rename(columns=_text)
        content = frame.to_html(index=False, escape=False, border=0, classes="table", justify="left")
    return f'<div class="scroll">{content}</div>'


def _text(value: object) -> str:
    """A value as HTML; pandas would write a line break as `\\n`."""
    return html.escape(" ".join(str(value).split()))
