"""Links and films of executed notebooks: found from where they lie, and on the site as the page was written."""

import os
from urllib.parse import unquote

import nbformat
import pytest

from moviegen.config import outputs_folder, project_root
from moviegen.report import addresses, media
from tests.report.making import section

PROSE = (
    "See [data](02_data.ipynb), [a figure](06_training.ipynb#losses), [it](#here), "
    "[the paper](https://arxiv.org/abs/1) and [more](../docs/x.md#a-part)."
)
SHOWN = '<p>from <a class="run" href="provenance.html#stage1-ab">stage1-ab</a>, <a href="#here">here</a></p>'


@pytest.fixture
def film(params):
    path = outputs_folder(params) / "runs" / "sample-ab" / "a clip.mp4"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.fixture
def notebook(film):
    shown = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in (SHOWN, media.video(film, "a"))]
    cells = [nbformat.v4.new_markdown_cell(PROSE), nbformat.v4.new_code_cell("show()", outputs=shown)]
    return nbformat.v4.new_notebook(cells=cells)


def contents(notebook):
    prose, code = notebook.cells
    return prose.source, *(output["data"]["text/html"] for output in code.outputs)


def test_an_executed_notebook_finds_pages_and_films_from_its_folder(params, notebook, film):
    folder = section("training-1").executed(params).parent
    addresses.for_executed(notebook, section("training-1"), folder)
    prose, shown, player = contents(notebook)
    assert "(../html/data.html)" in prose and "(../html/training-1.html#losses)" in prose
    assert f"({os.path.relpath(project_root() / 'docs/x.md', folder)}#a-part)" in prose
    assert "(../html/training-1.html#here)" in prose and "(https://arxiv.org/abs/1)" in prose
    assert 'href="../html/provenance.html#stage1-ab"' in shown and 'href="../html/training-1.html#here"' in shown
    (address,) = [part.split('"')[1] for part in player.split() if part.startswith("src=")]
    assert address == "../runs/sample-ab/a%20clip.mp4"
    folder.mkdir()
    assert os.path.samefile(folder / unquote(address), film)


def test_on_the_site_links_lead_to_pages(params, notebook):
    before, one = contents(notebook), section("training-1")
    addresses.for_executed(notebook, one, one.executed(params).parent)
    addresses.for_site(notebook, one)
    prose, shown, _ = contents(notebook)
    assert "(data.html)" in prose and "(#losses)" in prose and "(#here)" in prose
    assert shown == before[1]


def test_what_shows_no_address_is_left_byte_for_byte(params, notebook):
    odd = "<P CLASS=x>1 &lt; 2<br></p><svg viewBox='0 0 1 1'></svg>"
    notebook.cells[1].outputs[0]["data"]["text/html"] = odd
    addresses.for_executed(notebook, section("data"), section("data").executed(params).parent)
    assert contents(notebook)[1] == odd
