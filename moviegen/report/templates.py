"""Pieces of HTML that are longer than a line: files of `template/`, filled in. What is put into them is escaped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = Path(__file__).parent / "template"


def filled(name: str, **values: Any) -> str:
    """A template's HTML; a value that is HTML already comes as `markupsafe.Markup`."""
    return _environment().get_template(f"{name}.html.j2").render(values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not for a site that is up to date

    return Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
