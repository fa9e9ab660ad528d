"""Where links and films of a notebook lead: from `notebooks/`, from where the executed one lies, and on the site.

A page is written for `notebooks/`, where its films are found. Its prose names notebooks (`02_data.ipynb#clips`; of
one with several pages that is the first), what cells show names pages as on the site (`data.html#clips`). In
`outputs/<scale>/notebooks/` all are told from there, so that JupyterLab finds them; publishing takes that back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from moviegen.config import project_root
from moviegen.report import documents
from moviegen.report.sections import SECTIONS, Section

SITE = "../html/"  # from an executed notebook
PAGES = {section.page: section.page for section in SECTIONS}
PAGES |= {section.notebook: section.page for section in reversed(SECTIONS)}  # by what prose calls them
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/", re.IGNORECASE)
_IN_MARKDOWN = re.compile(r"(?<=\]\()[^)\s]+")


def for_executed(notebook: Any, section: Section, folder: Path) -> None:
    """Has the addresses of a notebook that was executed in `notebooks/` lead to the same from another folder.

    Args:
        folder: `outputs/<scale>/notebooks`.
    """

    def moved(address: str) -> str:
        if address.startswith("#"):
            return f"{SITE}{section.page}{address}"
        name, mark, anchor = address.partition("#")
        if name in PAGES:
            return f"{SITE}{PAGES[name]}{mark}{anchor}"
        path = os.path.normpath(project_root() / "notebooks" / unquote(name))
        return f"{quote(os.path.relpath(path, folder))}{mark}{anchor}"

    _change(notebook, moved)


def for_site(notebook: Any, section: Section) -> None:
    """Has links of an executed notebook lead from its page; films stay where they are, until the site takes them."""

    def moved(address: str) -> str:
        page = address.removeprefix(SITE)
        return page.removeprefix(section.page) if page.startswith(f"{section.page}#") else page

    _change(notebook, moved)


def _change(notebook: Any, moved: Callable[[str], str]) -> None:
    """Changes each address that is relative, in prose and in what cells show."""

    def of_match(match: re.Match[str]) -> str:
        return _unless_elsewhere(match[0], moved)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _IN_MARKDOWN.sub(of_match, cell.source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = _changed("".join(data["text/html"]), moved)


def _changed(shown: str, moved: Callable[[str], str]) -> str:
    page, is_changed = documents.parse(shown), False
    for name in ("href", "src"):
        for part in page.select(f"[{name}]"):
            address = _unless_elsewhere(str(part[name]), moved)
            is_changed |= address != part[name]
            part[name] = address
    return str(page) if is_changed else shown


def _unless_elsewhere(address: str, moved: Callable[[str], str]) -> str:
    return address if _ELSEWHERE.match(address) else moved(address)
