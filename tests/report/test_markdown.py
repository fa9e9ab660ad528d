"""Notebooks' text: formulas as MathML, citations as links, all else as nbconvert has it."""

import xml.etree.ElementTree as ET

import pytest

from moviegen.config import ConfigError
from moviegen.report import documents, search
from moviegen.report.formulas import mathml
from moviegen.report.markdown import rendered

MATHML = "{http://www.w3.org/1998/Math/MathML}"


def test_a_formula_is_the_mathml_of_its_latex():
    found = ET.fromstring(mathml(r"X_t = \frac{a}{2}"))
    fraction = found.find(f".//{MATHML}mfrac")
    index = found.find(f".//{MATHML}msub")
    assert [part.text for part in index] == ["X", "t"]
    assert ["".join(part.itertext()) for part in fraction] == ["a", "2"]


def test_formulas_stand_in_a_line_or_on_one_of_their_own():
    page = documents.parse(rendered("Noise $X_0$ and\n\n$$t < 1$$\n\nbut `$x$` is code.", "n.ipynb"))
    assert [one["display"] for one in page.find_all("math")] == ["inline", "block"]
    assert page.select_one(".formula > math").get_text() == "t<1"
    assert page.code.get_text() == "$x$"


def test_formulas_are_found_by_the_search():
    page = documents.parse(f"<main><h1>A</h1>{rendered('Noise $X_0$ here.', 'n.ipynb')}</main>")
    assert search.entries("a.html", page)[0][-1] == "Noise X0 here."


@pytest.mark.parametrize("latex", [r"\nonsense{x}", "x_", r"\left( x", r"\frac"])
def test_a_formula_that_cannot_be_read_names_notebook_and_formula(latex):
    with pytest.raises(ConfigError) as caught:
        rendered(f"It is ${latex}$.", "06_training.ipynb")
    assert str(caught.value).startswith("06_training.ipynb: ")
    assert latex in str(caught.value)


def test_citations_link_to_the_list_of_references():
    page = documents.parse(rendered("As [@lipman2023; @liu2023] say, not `[@code]` or [a link](b.html).", "n.ipynb"))
    assert page.p.get_text() == "As (Lipman et al., 2023; Liu et al., 2023) say, not [@code] or a link."
    assert [link["href"] for link in page.select("a.cite")] == [
        "provenance.html#reference-lipman2023",
        "provenance.html#reference-liu2023",
    ]
    assert page.find_all("a")[-1]["href"] == "b.html"
