"""Holds what a page says against what was derived again, number by number and picture by picture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from bs4 import BeautifulSoup
from bs4.element import Comment, NavigableString, Tag

NUMBER = re.compile(r"(?<![\w.-])[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
PICTURES = ("img", "video", "svg")
CODE = ("script", "style", "pre", "code")  # commands and parameters are not numbers that a page shows


@dataclass(frozen=True)
class Traced:
    """How many numbers and pictures a page shows, how many came out the same again, and what else did not."""

    numbers: int
    same_numbers: int
    pictures: int
    same_pictures: int
    differences: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A text or a tag with its attributes, and what of it a reader sees as numbers and pictures."""

    content: str
    numbers: int = 0
    pictures: int = 0


def trace(page: str, derived: str, within: str | None = None) -> Traced:
    """Compares two pieces of HTML.

    Args:
        within: the class of the elements whose numbers and pictures are counted; None: all of them. All else must be
            the same too.
    """
    there, again = _pieces(page, within), _pieces(derived, within)
    same: list[_Piece] = []
    differences = []
    for kind, first, end, start, stop in _blocks(there, again):
        if kind == "equal":
            same += there[first:end]
        else:
            differences.append(f"{_said(there[first:end])} is, derived again, {_said(again[start:stop])}")
    return Traced(
        numbers=sum(piece.numbers for piece in there),
        same_numbers=sum(piece.numbers for piece in same),
        pictures=sum(piece.pictures for piece in there),
        same_pictures=sum(piece.pictures for piece in same),
        differences=tuple(differences),
    )


def _blocks(there: list[_Piece], again: list[_Piece]) -> Iterable[tuple[str, int, int, int, int]]:
    """What is equal and what is not; where both begin and end alike is not searched, as tags repeat by the thousand."""
    shorter = min(len(there), len(again))
    head = next((place for place in range(shorter) if there[place] != again[place]), shorter)
    tail = next((place for place in range(shorter - head) if there[-1 - place] != again[-1 - place]), shorter - head)
    yield "equal", 0, head, 0, head
    matcher = SequenceMatcher(None, there[head : len(there) - tail], again[head : len(again) - tail])
    for kind, *places in matcher.get_opcodes():
        first, end, start, stop = (head + place for place in places)
        yield kind, first, end, start, stop
    yield "equal", len(there) - tail, len(there), len(again) - tail, len(again)


def _pieces(content: str, within: str | None) -> list[_Piece]:
    soup = BeautifulSoup(content, "html.parser")
    if isinstance(soup.html, Tag):
        soup.html.attrs.pop("data-mark", None)  # what the page was made from, with the times of executing
    return list(_all_pieces(soup, within is None, within))


def _all_pieces(tag: Tag, counts: bool, within: str | None) -> Iterable[_Piece]:
    for child in tag.children:
        if isinstance(child, Tag):
            is_in = counts or within in (child.get("class") or ())
            attributes = "".join(_attribute(name, value) for name, value in child.attrs.items())
            yield _Piece(f"<{child.name}{attributes}>", pictures=int(is_in and child.name in PICTURES))
            yield from _all_pieces(child, is_in and child.name not in CODE, within)
        elif isinstance(child, NavigableString) and not isinstance(child, Comment) and child.strip():
            text = " ".join(child.split())
            yield _Piece(text, numbers=len(NUMBER.findall(text)) if counts else 0)


def _attribute(name: str, value: object) -> str:
    """As it is written; the id of a cell is none, as papermill draws that of its own anew each time."""
    text = " ".join(value) if isinstance(value, list) else str(value)
    return "" if text.startswith("cell-id=") else f' {name}="{text}"'


def _said(pieces: list[_Piece]) -> str:
    """What a reader sees of some pieces, or else their tags, cut short."""
    texts = [piece.content for piece in pieces if not piece.content.startswith("<")]
    said = " ".join(texts or [piece.content for piece in pieces])
    return repr(said if len(said) <= 160 else f"{said[:80]} ... {said[-60:]}") if said else "nothing"
