"""The few pieces of HTML every page is made of: cards around figures and tables, notes, links to runs, images."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from IPython.display import HTML

from moviegen.report import jupyter
from moviegen.report.reproduce import commands
from moviegen.runs import Run

NOT_RUN = "not run here"  # of what needs cards that are not there; see `provenance.why_absent`


def card(content: str, caption: str, runs: Iterable[Run | None] = ()) -> HTML:
    """A figure or table with its caption and the runs its numbers come from.

    The appendix finds those runs again by `data-runs`, so what it lists is what was shown.
    """
    by_name = {run.name: run for run in runs if run}
    names = list(by_name)
    source = f'<span class="source">from {", ".join(map(run_link, names))}</span>{_again(by_name)}' if names else ""
    return HTML(
        f'<figure class="card" data-runs="{" ".join(names)}">{content}'
        f'<figcaption><span class="title">{html.escape(caption)}</span> {source}</figcaption></figure>'
    )


def _again(runs: Mapping[str, Run]) -> str:
    """How a stranger computes again what a card shows, folded away."""
    typed = html.escape(commands(list(runs.values())))
    return f'<details class="reproduce"><summary>Reproduce</summary><pre>{typed}</pre></details>'


def run_link(name: str) -> str:
    """A run's id, linked to its entry in the appendix: its page, or in JupyterLab its notebook."""
    appendix = "10_provenance.ipynb" if jupyter.is_live() else "provenance.html"
    return f'<a class="run" href="{appendix}#{html.escape(name)}">{html.escape(name)}</a>'


def note(text: str) -> HTML:
    """A remark set apart from the prose; `text` is HTML."""
    return HTML(f'<p class="note">{text}</p>')


def prose(text: str) -> HTML:
    """A paragraph that a page writes from parameters and runs, where a notebook would type their numbers in."""
    return HTML(f'<p class="prose">{text}</p>')


def missing(what: str) -> HTML:
    """What stands in the place of a figure whose run is not there."""
    return note(f"<b>{html.escape(what)}:</b> {NOT_RUN}.")


def image(data: str, alt: str, kind: str) -> str:
    """An `<img>` of a data URI; a `kind` of plot takes the colours of the site, and stays white in JupyterLab."""
    return f'<img class="{kind}" style="background: white" alt="{html.escape(alt)}" src="{data}">'
