"""The executed notebooks of a published report, as JupyterLab opens them: what they link to and show is there."""

import functools
import re
from urllib.parse import unquote

import mistune
import nbformat
from bs4 import BeautifulSoup

ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def shown(notebook):
    """The HTML of a notebook's prose and of what its cells show."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield mistune.html(cell.source)
        for output in cell.get("outputs", ()):
            yield output.get("data", {}).get("text/html", "")


def addresses(notebook):
    """Those that are relative."""
    for html in shown(notebook):
        for part in BeautifulSoup(html, "html.parser").select("[src], [href]"):
            yield from (
                part[name] for name in ("src", "href") if name in part.attrs and not ELSEWHERE.match(part[name])
            )


@functools.cache
def anchors(page):
    return {part["id"] for part in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find_all(id=True)}


def leads_nowhere(notebook, address):
    path, _, anchor = address.partition("#")
    target = notebook.parent / unquote(path)
    if not path or not target.is_file():
        return True
    return bool(anchor) and target.suffix == ".html" and anchor not in anchors(target.resolve())


def test_executed_notebooks_lead_to_what_is_there(site):
    notebooks = sorted((site.parent / "notebooks").glob("[!.]*.ipynb"))
    found = {notebook: set(addresses(notebook)) for notebook in notebooks}
    assert any(address.endswith(".mp4") for each in found.values() for address in each)
    lost = {n.name: [one for one in each if leads_nowhere(n, one)] for n, each in found.items()}
    assert {name: each for name, each in lost.items() if each} == {}
    assert leads_nowhere(notebooks[0], "../html/index.html#no-such-anchor") and leads_nowhere(notebooks[0], "no.mp4")
