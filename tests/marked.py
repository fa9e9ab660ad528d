"""Parts of the documents that programs write: what is between two comments of a Markdown file."""

from __future__ import annotations


def marks(name: str) -> tuple[str, str]:
    """The comments around the part of that name."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def replaced(text: str, name: str, new: str) -> str:
    """The text with another part of that name.

    Raises:
        ValueError: the comments are not there once each.
    """
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the text must hold {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{new}{end}{rest.partition(end)[2]}"


def part(text: str, name: str) -> str:
    """What is there now."""
    begin, end = marks(name)
    return text.partition(begin)[2].partition(end)[0].removeprefix("\n")
