"""What notebooks cite: `notebooks/references.bib`, read by pybtex; `[@lipman2023]` in a notebook names an entry."""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen.config import ConfigError, nearest, project_root
from moviegen.report.wording import in_checkout

LIST = "provenance.html"  # the page that lists them all
FEW = 2  # authors who are all named where they are cited


@dataclass(frozen=True)
class Work:
    """An entry: what it is called in a text, and all of it as HTML."""

    label: str
    entry: str


def path() -> Path:
    """The BibTeX file."""
    return project_root() / "notebooks" / "references.bib"


def cited(keys: str, notebook: str) -> str:
    """The links that `[@lipman2023; @liu2023]` becomes.

    Args:
        keys: what stands between the brackets.
        notebook: for the message.

    Raises:
        ConfigError: there is no such entry.
    """
    return f"({'; '.join(_link(key.strip().removeprefix('@'), notebook) for key in keys.split(';'))})"


def _link(key: str, notebook: str) -> str:
    works = read()
    if key not in works:
        raise ConfigError(
            f"{notebook}: it cites [@{key}], which is no entry of {in_checkout(str(path()))}{nearest(key, works)}"
        )
    return f'<a class="cite" href="{LIST}#{anchor(key)}">{html.escape(works[key].label)}</a>'


def anchor(key: str) -> str:
    """The id of an entry in the list."""
    return f"reference-{key}"


def listed() -> str:
    """All entries as HTML, by author and year; where they are cited is added when the site is published."""
    items = (f'<li id="{anchor(key)}">{work.entry}</li>' for key, work in read().items())
    return f'<ul class="references">{"".join(items)}</ul>'


@functools.cache
def read() -> dict[str, Work]:
    """The entries by key, in the order of the list.

    Raises:
        ConfigError: the file is no BibTeX, or an entry lacks what its kind needs.
    """
    from pybtex.database import parse_file  # with its style 0.5 s to import: not for a site that is up to date
    from pybtex.exceptions import PybtexError
    from pybtex.plugin import find_plugin

    written, style = find_plugin("pybtex.backends", "html")("utf-8"), find_plugin("pybtex.style.formatting", "plain")()
    try:
        found = parse_file(str(path()), bib_format="bibtex")
        for key, entry in found.entries.items():
            if not entry.persons.get("author"):
                raise ConfigError(f"{in_checkout(str(path()))}: entry {key} has no author: add one")
        works = {
            one.key: Work(_label(found.entries[one.key]), " ".join(one.text.render(written).split()))
            for one in style.format_bibliography(found)
        }
    except (PybtexError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{in_checkout(str(path()))} cannot be read as BibTeX: {error}") from None
    return dict(sorted(works.items(), key=lambda item: item[1].label.lower()))


def _label(entry: Any) -> str:
    """`Lipman et al., 2023`: the first author, or two, and the year where it is known."""
    names = [_name(person) for person in entry.persons["author"]]
    who = " and ".join(names) if len(names) <= FEW else f"{names[0]} et al."
    return ", ".join(filter(None, (who, entry.fields.get("year"))))


def _name(person: Any) -> str:
    """The last name; all of an organisation's."""
    parts = [*person.rich_prelast_names, *person.rich_last_names]
    return " ".join(part.render_as("text") for part in parts).removeprefix("The ")
