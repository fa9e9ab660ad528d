"""The index of the site's search: what stands below each heading. It is a script, as pages from disk load no data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from bs4 import BeautifulSoup, NavigableString, Tag

from moviegen.report.documents import HEADINGS, heading_text

_NOT_SEARCHED = ("h1", "nav", "pre", "script", "style", "svg", "video")


def index(pages: Mapping[str, BeautifulSoup]) -> str:
    """`search.js`: of each heading the page, its title, the anchor, the heading and the text up to the next one.

    Args:
        pages: by file name.
    """
    found = [entry for name, page in pages.items() for entry in entries(name, page)]
    return f"window.searchIndex = {json.dumps(found, ensure_ascii=False)};\n"


def entries(name: str, page: BeautifulSoup) -> list[list[str]]:
    """One page's; what stands before its first lower heading comes first."""
    main = page.main or page
    title = heading_text(main.h1) if main.h1 else ""
    found: list[list[str]] = [[name, title, "", title, ""]]
    for part in _parts(main):
        if isinstance(part, Tag):
            found.append([name, title, str(part["id"]), heading_text(part), ""])
        else:
            found[-1][-1] += f" {part}"
    return [[*places, " ".join(text.split())] for *places, text in found]


def _parts(tag: Tag) -> Iterator[Tag | str]:
    """The lower headings, and the texts between them."""
    for child in tag.children:
        if isinstance(child, Tag):
            if child.name in HEADINGS[1:] and child.get("id"):
                yield child
            elif child.name == "math":
                yield child.get_text()
            elif child.name not in _NOT_SEARCHED and "code" not in child.get_attribute_list("class"):
                yield from _parts(child)
        elif type(child) is NavigableString:
            yield str(child)
