"""The BibTeX file, its entries as they are cited and listed, and that notebooks cite just these."""

import re

import nbformat
import pytest

from moviegen.config import ConfigError, project_root
from moviegen.report import bibliography, documents

BIBTEX = """
@article{one2001, author = {Ann One}, title = {{A <b> \\& B}}, journal = {J}, year = {2001}, doi = {10.1/x}}
@misc{two2002, author = {Ann One and van der Two, Bert}, title = {{T}}, year = {2002}, eprint = {2001.00001},
      archivePrefix = {arXiv}}
@misc{three, author = {{The Many Authors}}, title = {{M}}}
@misc{four2004, author = {A One and B Two and C Three}, title = {{U}}, year = {2004}}
"""


@pytest.fixture
def works(tmp_path, monkeypatch):
    (tmp_path / "some.bib").write_text(BIBTEX)
    monkeypatch.setattr(bibliography, "path", lambda: tmp_path / "some.bib")
    bibliography.read.cache_clear()
    yield bibliography.read()
    bibliography.read.cache_clear()


def test_labels_name_who_and_when(works):
    assert {key: work.label for key, work in works.items()} == {
        "three": "Many Authors",
        "four2004": "One et al., 2004",
        "two2002": "One and van der Two, 2002",
        "one2001": "One, 2001",
    }


def test_entries_are_listed_whole_with_their_addresses(works):
    items = documents.parse(bibliography.listed()).select("ul > li")
    assert [item["id"] for item in items] == [f"reference-{key}" for key in works]
    (one,) = (item for item in items if item["id"] == "reference-one2001")
    assert one.get_text() == "Ann One. A <b> & B. J, 2001. doi:10.1/x."
    assert one.a["href"] == "https://doi.org/10.1/x"
    assert 'href="https://arxiv.org/abs/2001.00001"' in works["two2002"].entry


def test_an_unknown_key_names_notebook_and_key(works):
    with pytest.raises(ConfigError, match=r"06\.ipynb: it cites \[@one2011\].*some\.bib; did you mean 'one2001'"):
        bibliography.cited("@two2002; @one2011", "06.ipynb")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("@misc{five, title = {{V}}}", "entry five has no author"),
        ("@article{five, author = {A B}, title = {{V}}}", "five"),
        ("@misc{five, title = ", "cannot be read as BibTeX"),
    ],
)
def test_a_broken_entry_is_named_with_its_file(entry, said, works, tmp_path):
    (tmp_path / "some.bib").write_text(BIBTEX + entry)
    bibliography.read.cache_clear()
    with pytest.raises(ConfigError, match=rf"some\.bib.*{said}"):
        bibliography.read()


def test_notebooks_cite_every_entry_and_no_other():
    cited = set()
    for path in (project_root() / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                cited |= set(re.findall(r"@([a-z]+\d{0,4})\b", cell.source))
    assert cited == set(bibliography.read())


def test_every_entry_says_where_to_find_the_work():
    for work in bibliography.read().values():
        assert documents.parse(work.entry).a["href"].startswith("https://")
