"""The index of the site's search: what stands below each heading. It is a script, as pages from disk load no data."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bs4 import BeautifulSoup, NavigableString, Tag

from moviegen.report.documents import HEADINGS, heading_text

_NOT_SEARCHED = ("nav", "pre", "script", "style", "svg", "video")


def index(pages: Mapping[str, BeautifulSoup]) -> str:
    """`search.js`: of each heading the page, its title, the anchor, the heading and the text up to the next one.

    Args:
        pages: by file name.
    """
    entries = [entry for name, page in pages.items() if page.main for entry in _entries(name, page.main)]
    return f"window.searchIndex = {json.dumps(entries, ensure_ascii=False)};\n"


def _entries(name: str, main: Tag) -> list[list[str]]:
    title = heading_text(main.h1) if main.h1 else ""
    entries: list[list[str]] = [[name, title, "", title, ""]]
    texts: list[list[str]] = [[]]
    _walk(main, name, title, entries, texts)
    for entry, text in zip(entries, texts, strict=True):
        entry[-1] = " ".join(" ".join(text).split())
    return entries


def _walk(tag: Tag, name: str, title: str, entries: list[list[str]], texts: list[list[str]]) -> None:
    """Adds the text below a tag to the last entry; a heading begins the next one."""
    for child in tag.children:
        if isinstance(child, Tag):
            if child.name in HEADINGS[1:] and child.get("id"):
                entries.append([name, title, str(child["id"]), heading_text(child), ""])
                texts.append([])
            elif child.name not in (*_NOT_SEARCHED, "h1"):
                _walk(child, name, title, entries, texts)
        elif type(child) is NavigableString:
            texts[-1].append(child)
