"""What is done to a page once nbconvert has made it: figures and tables are numbered, named and referred to."""

from __future__ import annotations

import ast
import base64
import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bs4 import BeautifulSoup, Comment, Tag

from moviegen.report.themes import in_both_themes

HEADINGS = ("h1", "h2", "h3")
KINDS = ("figure", "table")  # a link that says no more than this is completed with its target's number
VALUE_LENGTH = 16  # of what is read at a glance: `22.54 ± 3.7`, `+18 %`
_SVG = "data:image/svg+xml;base64,"
_DROPPED = ("metadata", "style")  # of drawings: the second would hold for the whole page


@dataclass(frozen=True)
class Target:
    """What can be linked to and is shown beside the link: a figure, a table or a reference."""

    label: str
    text: str


def parse(page: str) -> BeautifulSoup:
    """A page as a tree."""
    return BeautifulSoup(page, "html.parser")


def shown_by(source: str) -> str:
    """The function that a cell ends in a call of: `page.losses(run)` shows `losses`, the anchor of what it shows."""
    try:
        last = ast.parse(source).body[-1]
    except (SyntaxError, IndexError):
        return ""
    call = last.value if isinstance(last, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else ""


def finish(page: BeautifulSoup, chapter: int | None) -> None:
    """All that needs no other page.

    Args:
        chapter: the page's number among the pages, the first part of its figures' numbers; None: they have none.
    """
    _draw_inline(page)
    _name_headings(page)
    _number(page, chapter)
    _name_citations(page)
    _list_headings(page)
    _label_tables(page)


def refer(pages: Mapping[str, BeautifulSoup]) -> None:
    """Completes references by the targets' numbers, and gives links to other pages what is shown beside them.

    The list of references says of each work where it is cited.

    May be done again: a page that was complete stays as it is unless a target changed.

    Args:
        pages: by file name.
    """
    for page in pages.values():
        for cited in page.select("li .cited"):
            cited.decompose()
    targets = {f"{name}#{anchor}": one for name, page in pages.items() for anchor, one in _targets(page)}
    for name, page in pages.items():
        for link in _main(page).find_all("a", href=True):
            address = str(link["href"])
            target = targets.get(name + address if address.startswith("#") else address)
            _complete(link, target, is_here=address.startswith("#"))
    _say_where_cited(pages)


def _complete(link: Tag, target: Target | None, is_here: bool) -> None:
    words = " ".join(link.get_text().split())
    if words.lower() in KINDS:
        link["data-kind"] = words
    if "data-kind" in link.attrs:
        link.string = target.label if target and target.label else str(link["data-kind"])
    del link["data-preview"]
    if target and not is_here:
        link["data-preview"] = target.text


def _targets(page: BeautifulSoup) -> Iterator[tuple[str, Target]]:
    for card in page.select("figure.card[id]"):
        label = str(card.get("data-label", ""))
        yield str(card["id"]), Target(label, f"{label}. {_title(card)}" if label else _title(card))
    for item in page.select("li[id^=reference-]"):
        yield str(item["id"]), Target("", " ".join(item.get_text().split()))


def _name_citations(page: BeautifulSoup) -> None:
    """The first of each work on a page can be linked to: `#cite-lipman2023`."""
    named: set[str] = set()
    for link in page.select("a.cite[href]"):
        name = f"cite-{str(link['href']).partition('#reference-')[2]}"
        if name not in named:
            link["id"] = name
            named.add(name)


def _say_where_cited(pages: Mapping[str, BeautifulSoup]) -> None:
    for item in (item for page in pages.values() for item in page.select("li[id^=reference-]")):
        name = f"cite-{str(item['id']).removeprefix('reference-')}"
        where = {f"{file}#{name}": _entry(page) for file, page in pages.items() if page.find(id=name)}
        said = parse(", ".join(f'<a href="{address}">{html.escape(title)}</a>' for address, title in where.items()))
        if where:
            cited = said.new_tag("span", attrs={"class": "cited"}, string=" Cited in: ")
            cited.extend(list(said.children))
            item.append(cited)


def _entry(page: BeautifulSoup) -> str:
    """What a page is called in the contents."""
    entry = page.select_one("nav.contents li.current > a")
    return " ".join(entry.get_text().split()) if entry else "this page"


def _main(page: BeautifulSoup) -> Tag:
    return page.main or page


def _title(card: Tag) -> str:
    title = card.select_one("figcaption .title")
    return " ".join(title.get_text().split()) if title else ""


def _draw_inline(page: BeautifulSoup) -> None:
    """Drawings become part of the page, so that they take its colours; as images they are white on JupyterLab's."""
    for number, image in enumerate(page.select(f'img.plot[src^="{_SVG}"]'), 1):
        drawing = parse(_drawing(str(image["src"]))).svg
        if drawing is None:
            continue
        for comment in drawing.find_all(string=lambda text: isinstance(text, Comment)):
            comment.extract()
        for part in drawing.find_all(_DROPPED):
            part.decompose()
        _rename(drawing, f"drawing-{number}-")
        for part in drawing.find_all(style=True):
            part["style"] = in_both_themes(str(part["style"]))
        drawing.attrs = {name: value for name, value in drawing.attrs.items() if name not in ("width", "height")}
        drawing.attrs |= {"role": "img", "aria-label": str(image.get("alt", ""))}
        box = page.new_tag("div", attrs={"class": "plot"})
        box.append(drawing)
        image.replace_with(box)


def _drawing(address: str) -> str:
    """The SVG element of a data URI, without what XML has before it."""
    text = base64.b64decode(address.removeprefix(_SVG)).decode()
    return text[text.index("<svg") :]


def _rename(drawing: Tag, prefix: str) -> None:
    """Makes the ids of one drawing the only ones of the page, where they are used too."""
    for part in drawing.find_all(True):
        for name, value in part.attrs.items():
            if name == "id":
                part[name] = prefix + str(value)
            elif name in ("href", "xlink:href") and str(value).startswith("#"):
                part[name] = f"#{prefix}{str(value)[1:]}"
            elif "url(#" in str(value):
                part[name] = str(value).replace("url(#", f"url(#{prefix}")


def _name_headings(page: BeautifulSoup) -> None:
    """No two have the same anchor, and each says where its own link leads."""
    taken: set[str] = set()
    for heading in _main(page).find_all(HEADINGS, id=True):
        heading["id"] = _unique(str(heading["id"]), taken)
        if link := heading.select_one("a.anchor-link"):
            link["href"] = f"#{heading['id']}"
            link["aria-label"] = f"Link to: {heading_text(heading)}"


def heading_text(heading: Tag) -> str:
    """What a heading says, without the sign of its anchor."""
    strings = [text for text in heading.strings if not text.find_parent("a", class_="anchor-link")]
    return " ".join("".join(strings).split())


def _number(page: BeautifulSoup, chapter: int | None) -> None:
    """Numbers figures and tables, each in its own row, and gives them their anchors.

    What stands in the place of one that has not been made has its anchor, too.
    """
    taken = {str(part["id"]) for part in page.find_all(id=True)}
    counts = dict.fromkeys(KINDS, 0)
    for cell in page.select("[data-shows]"):
        name, cards = str(cell["data-shows"]), cell.select("figure.card")
        if not cards and name:
            cell["id"] = _unique(name, taken)
        for card in cards:
            shown = card.find(["table", "svg", "img", "video"])
            kind = "table" if shown and shown.name == "table" else "figure"
            counts[kind] += 1
            card["id"] = _unique(name or f"{kind}-{counts[kind]}", taken)
            if chapter is not None and card.figcaption:
                label = f"{kind.capitalize()} {chapter}.{counts[kind]}"
                card["data-label"] = label
                link = page.new_tag("a", attrs={"class": "number", "href": f"#{card['id']}"}, string=label)
                card.find_all("figcaption")[-1].insert(0, link, " ")


def _list_headings(page: BeautifulSoup) -> None:
    """The second-level headings below the page's entry in the contents."""
    entry, headings = page.select_one("nav.contents li.current"), _main(page).find_all("h2", id=True)
    if entry is None or not headings:
        return
    listed = page.new_tag("ul")
    for heading in headings:
        item = page.new_tag("li")
        item.append(page.new_tag("a", attrs={"href": f"#{heading['id']}"}, string=heading_text(heading)))
        listed.append(item)
    entry.append(listed)


def _label_tables(page: BeautifulSoup) -> None:
    """A screen reader is told which table it enters, and of which cells are headers; values stay in one line."""
    for box in page.select(".scroll"):
        card = box.find_parent("figure", class_="card")
        box.attrs |= {"role": "group", "aria-label": (card and _title(card)) or "Table"}
    for header in page.select("table th"):
        if not header.get_text(strip=True):
            header.name = "td"
        elif header.find_parent("thead"):
            header["scope"] = "col"
    for cell in page.select("tbody td"):
        words = cell.get_text(strip=True)
        if len(words) <= VALUE_LENGTH and words.lstrip("+-")[:1].isdigit():
            cell["class"] = "value"


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found
