"""Notebooks that a person has open in JupyterLab, beside those that a report executes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from IPython.core.getipython import get_ipython
from IPython.display import HTML

PUBLISHING = "MOVIEGEN_PUBLISHING"  # a report executes this notebook: nobody is there to read what comes and goes

# The site has a style of its own: these selectors find nothing there.
_STYLE = """<style>
.jp-OutputArea figure.card { margin: 0.6em 0 1em; padding: 1em 1.1em 0.8em; border-radius: 8px;
  border: 1px solid var(--jp-border-color2, #ddd); background: var(--jp-layout-color1, #fff); max-width: 58em; }
.jp-OutputArea figure { margin: 0; }
.jp-OutputArea figcaption { margin-top: 0.5em; font-size: 0.9em; color: var(--jp-ui-font-color2, #666); }
.jp-OutputArea figure.card > figcaption .title { color: var(--jp-ui-font-color1, #222); }
.jp-OutputArea img.plot, .jp-OutputArea img.photo { display: block; width: 100%; border-radius: 4px; }
.jp-OutputArea .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15em, 1fr)); gap: 1em; }
.jp-OutputArea .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(11em, 1fr)); gap: 0.3em 0.9em;
  margin-bottom: 1em; }
.jp-OutputArea .way { display: grid; grid-template-columns: repeat(auto-fit, minmax(7em, 1fr)); gap: 0.5em 0.4em; }
.jp-OutputArea .channels { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); gap: 0.6rem; }
.jp-OutputArea .channels figure.large { grid-column: span 2; grid-row: span 2; }
.jp-OutputArea .outliers { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.9em; }
.jp-OutputArea .key img.photo { display: inline-block; width: 4em; height: 0.7em; margin: 0 0.4em 0 0.9em; }
.jp-OutputArea .pair .prompt { grid-column: 1 / -1; margin: 0.3em 0 0; font-style: italic; }
.jp-OutputArea video { display: block; width: 100%; border-radius: 4px; background: #000; }
.jp-OutputArea .scroll { overflow-x: auto; max-width: 58em; }
.jp-OutputArea .scroll table { width: 100%; font-variant-numeric: tabular-nums; }
.jp-OutputArea .scroll :is(th, td) { text-align: left; vertical-align: top; }
.jp-OutputArea .note { margin: 0.6em 0; padding: 0.7em 1em; max-width: 58em; border-left: 3px solid #d9a441;
  background: var(--jp-layout-color2, #f5f5f5); border-radius: 0 6px 6px 0; }
.jp-OutputArea .note pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.jp-OutputArea .run-line { color: var(--jp-ui-font-color2, #666); }
.jp-OutputArea summary { cursor: pointer; }
</style>"""


def is_notebook() -> bool:
    """Whether this is a notebook's kernel, which keeps what is displayed."""
    return get_ipython() is not None


def is_live() -> bool:
    """Whether a person executes this notebook."""
    return is_notebook() and PUBLISHING not in os.environ


@contextmanager
def as_published() -> Iterator[None]:
    """Has pages show meanwhile what they show to nobody in particular, as in a notebook that a report executes."""
    before = os.environ.get(PUBLISHING)
    os.environ[PUBLISHING] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PUBLISHING]


def style() -> HTML:
    """How the pieces of a page look in JupyterLab, in its light and dark; the site passes it over."""
    return HTML(_STYLE)
