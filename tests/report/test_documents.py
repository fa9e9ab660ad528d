"""Numbers, anchors, references, headings and drawings of a page, without nbconvert."""

import pytest

from moviegen.report import documents, markup, search
from moviegen.report.pages import sampling
from moviegen.report.tables import table

FIGURE = sampling.schedules(10).data


def cell(name, *pieces):
    return f'<div data-shows="{name}">{"".join(pieces)}</div>'


def page(*pieces, chapter=3):
    found = documents.parse(
        '<nav class="contents"><ol><li class="current"><a href="a.html">A</a></li></ol></nav>'
        f"<main><h1>A page</h1>{''.join(pieces)}</main>"
    )
    documents.finish(found, chapter)
    return found


def numbers(found):
    return {card["id"]: card.select_one("figcaption .number").get_text() for card in found.select("figure.card")}


def test_figures_and_tables_are_numbered_apart_and_named_after_what_shows_them():
    rows = table([{"a": 1}], "Rows").data
    found = page(cell("losses", FIGURE), cell("sizes", rows), cell("losses", FIGURE), cell("", rows))
    assert numbers(found) == {
        "losses": "Figure 3.1", "sizes": "Table 3.1", "losses-2": "Figure 3.2", "table-2": "Table 3.2"
    }  # fmt: skip
    assert found.find(id="sizes").figcaption.get_text(" ", strip=True) == "Table 3.1 Rows"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("page.losses(run)", "losses"),
        ("run = section.launch('data')\npage.clips(run)", "clips"),
        ("run = section.launch('data')", ""),
        ("%time page.losses(run)", ""),
        ("", ""),
    ],
)
def test_what_a_cell_shows(source, name):
    assert documents.shown_by(source) == name


def referring(*links):
    return page(f"<p>{' and '.join(links)}</p>", cell("losses", FIGURE), cell("sizes", markup.missing("Sizes").data))


def test_references_are_completed_on_every_page_and_may_be_completed_again():
    here = referring(
        '<a href="#losses">figure</a>',
        '<a href="b.html#rows">Table</a>',
        '<a href="#sizes">table</a>',
        '<a href="#losses">as seen</a>',
        '<a href="b.html#none">Figure</a>',
    )
    there = page(cell("rows", table([{"a": 1}], "All <rows>").data), chapter=4)
    pages = {"a.html": here, "b.html": there}
    documents.refer(pages)
    assert here.p.get_text() == "Figure 3.1 and Table 4.1 and table and as seen and Figure"
    assert here.find(id="sizes").get_text() == "Sizes: not run here."  # what was not made can be linked to, too
    assert [link.get("data-preview") for link in here.p.find_all("a")][:2] == [None, "Table 4.1. All <rows>"]
    written = {name: documents.parse(str(one)) for name, one in pages.items()}
    before = {name: str(one) for name, one in written.items()}
    documents.refer(written)
    assert {name: str(one) for name, one in written.items()} == before
    written["b.html"] = page(cell("", FIGURE), cell("rows", FIGURE), chapter=4)
    documents.refer(written)
    assert written["a.html"].p.find_all("a")[1].get_text() == "Figure 4.2"


def test_a_citation_brings_its_entry_and_the_list_says_where_it_is():
    cite = '<a class="cite" href="b.html#reference-{0}">{0}</a>'
    here = page(f"<p>{cite.format('one')}, {cite.format('none')} and {cite.format('one')}</p>")
    works = '<ul><li id="reference-one">A. <i>Work.</i></li><li id="reference-two">B.</li></ul>'
    pages = {"a.html": here, "b.html": page(works)}
    documents.refer(pages)
    assert [link.get("data-preview") for link in here.p.find_all("a")] == ["A. Work.", None, "A. Work."]
    one, two = pages["b.html"].find_all("li", id=lambda name: bool(name) and name.startswith("reference"))
    assert one.get_text() == "A. Work. Cited in: A"
    assert one.a["href"] == "a.html#cite-one"
    assert len(here.find_all(id="cite-one")) == 1
    assert two.get_text() == "B."
    before = {name: str(found) for name, found in pages.items()}
    documents.refer(pages)
    assert {name: str(found) for name, found in pages.items()} == before


def test_headings_have_one_anchor_each_and_are_listed():
    twice = '<h2 id="A-b">A <i>b</i><a class="anchor-link" href="#A-b">¶</a></h2>'
    found = page(twice, twice)
    assert [(link["href"], link.get_text()) for link in found.nav.select("ul a")] == [
        ("#A-b", "A b"),
        ("#A-b-2", "A b"),
    ]
    assert [link["aria-label"] for link in found.main.select(".anchor-link")] == ["Link to: A b"] * 2


def test_short_values_stay_in_one_line():
    rows = [{"x": "22.54 ± 3.7", "y": "+18 %", "z": "stage 3", "w": "0.126 a step; 0.132 a clip", "v": "-"}]
    cells = page(cell("rows", table(rows, "Rows").data)).select("tbody td")
    assert [found.get("class") is not None for found in cells] == [True, True, False, False, False]


def test_drawings_are_part_of_the_page_in_its_colours():
    found = page(cell("a", FIGURE), cell("b", FIGURE))
    drawings = found.select(".plot > svg")
    assert len(drawings) == 2
    assert not found.find(["img", "style", "metadata"])
    ids = [part["id"] for part in found.find_all(id=True)]
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        own = {part["id"] for part in drawing.find_all(id=True)}
        used = {part["xlink:href"] for part in drawing.find_all(attrs={"xlink:href": True})}
        assert used
        assert used <= {f"#{name}" for name in own}
        assert "currentColor" in str(drawing)
    assert found.select_one(".plot > svg")["aria-label"] == found.find(id="a").select_one(".title").get_text()


def test_the_index_finds_what_stands_below_each_heading():
    code = "<details class='code'><pre>secret</pre></details>"
    found = page('<p>First, "all".</p><h2 id="B">Below</h2>', cell("rows", table([{"x": "cells"}], "Rows").data), code)
    assert search.entries("a.html", found) == [
        ["a.html", "A page", "", "A page", 'First, "all".'],
        ["a.html", "A page", "B", "Below", "x cells Table 3.1 Rows"],
    ]
    assert search.index({"a.html": found}).startswith('window.searchIndex = [["a.html", "A page"')
