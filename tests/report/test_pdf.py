"""The site as one page to print: links stay inside, scripts do not; and as Chromium prints it, where there is one."""

import re
from argparse import Namespace

import pytest
from bs4 import BeautifulSoup

from moviegen.config import ConfigError
from moviegen.report import pdf, publish
from moviegen.report.sections import SECTIONS
from tests.report.making import section, write_executed


def page(content):
    return f'<html><body><nav><a href="data.html">Data</a></nav><main><h1>T</h1>{content}</main></body></html>'


def merged(**contents):
    return BeautifulSoup(
        pdf.merged({section(name): page(text) for name, text in contents.items()}, "tiny"), "html.parser"
    )


def test_links_lead_to_the_same_places_in_the_whole():
    whole = merged(
        data='<h2 id="Sizes">x</h2><a href="#Sizes">own</a><a href="provenance.html#stage1-0%20a">run</a>',
        cost='<h2 id="Sizes">y</h2><a href="data.html">page</a><a href="https://x.org/a#b">far</a>'
        '<a href="../x">file</a><p id="styled"></p>',
        provenance='<div id="stage1-0 a">entry</div>',
    )
    places = {link.text: link.get("href") for link in whole.main.find_all_next("a")}
    assert whole.find(id=places["own"][1:]).text == "x"
    assert whole.find(id=places["run"][1:]).text == "entry"
    assert whole.find(id=places["page"][1:]).h2.text == "x"
    assert places["far"] == "https://x.org/a#b"
    assert places["file"] is None  # of this machine
    assert whole.find(id="styled")
    ids = [one["id"] for one in whole.select("[id]")]
    assert len(ids) == len(set(ids))
    contents = [link["href"] for link in whole.header.select("a")]
    assert [whole.find(id=address[1:]).name for address in contents] == ["main"] * 3


def test_the_title_of_the_whole_stands_once(params):
    repeated = page("").replace("<h1>T</h1>", f'<h1 id="R">{pdf.TITLE}<a class="anchor-link" href="#R">¶</a></h1>')
    pages = {section("overview"): repeated, section("data"): page("")}
    whole = BeautifulSoup(pdf.merged(pages, "tiny"), "html.parser")
    assert [heading.text for heading in whole.select("h1")] == [pdf.TITLE, "Overview", "T"]


def test_scripts_are_left_out_and_what_they_replace_stays():
    whole = merged(cost="<p>sliders</p><script>document.querySelector('p').hidden = true</script>")
    assert whole.script is None
    assert whole.main.p.text == "sliders"
    assert whole.nav is None


def test_a_clip_is_printed_by_its_first_frame():
    video = merged(sampling='<video src="a.mp4" controls preload="metadata"></video>').video
    assert (video["src"], video["preload"], video.get("controls")) == ("a.mp4", "auto", None)


def test_what_is_not_there_is_named(params, outputs, monkeypatch):
    monkeypatch.setattr(pdf, "chromium", lambda: "/no/chromium")
    with pytest.raises(ConfigError, match=r"lacks index\.html.*make report SCALE=tiny"):
        pdf.main(params, Namespace())
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(outputs))
    with pytest.raises(pdf.NoBrowser, match="apt-get install chromium"):
        pdf.main(params, Namespace())


def test_a_browser_that_prints_nothing_is_quoted(params, outputs, monkeypatch):
    fails = outputs / "fails"
    fails.write_text("#!/bin/sh\necho no room >&2\n")
    fails.chmod(0o755)
    monkeypatch.setattr(pdf, "chromium", lambda: str(fails))
    site = publish.publish(params).parent
    with pytest.raises(ConfigError, match="printed nothing: no room"):
        pdf.main(params, Namespace())
    assert not list(site.glob(".*")) and not list(site.parent.glob("*report.pdf"))


def test_chromium_prints_every_section(params, outputs):
    try:
        pdf.chromium()
    except pdf.NoBrowser as error:
        pytest.skip(str(error))
    for one in SECTIONS:
        write_executed(params, one.name)
    titles = [f"Heading of {one.name}" for one in SECTIONS]
    site = publish.publish(params).parent
    for one, title in zip(SECTIONS, titles, strict=True):
        path = site / one.page
        path.write_text(path.read_text().replace("A heading", title))
    pdf.main(params, Namespace())
    printed = (site.parent / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\n", printed)) == len(SECTIONS) + 1
    for title in titles:  # in the outline, which is not compressed
        assert f"/Title ({title})".encode() in printed
