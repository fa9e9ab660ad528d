import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from IPython.display import HTML

from moviegen.report import publish
from moviegen.report.pages import sampling, transformer
from moviegen.report.sections import SECTIONS
from tests.report.making import sampled, section, write_executed

LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("video", "src"), ("video", "poster"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)


def publish_samples(params):
    shown = sampling.clips(sampled(params), None, "unseen"), sampling.schedules(50), transformer.sizes(params, None)
    write_executed(params, "sampling", *shown)
    return publish.publish(params).parent


def test_every_section_has_a_page_and_every_link_resolves(params):
    site = publish_samples(params)
    pages = {path.name: Page(path.read_text()) for path in site.glob("*.html")}
    assert set(pages) == {section.page for section in SECTIONS}
    for file, page in pages.items():
        for link in page.links:
            name, _, anchor = link.partition("#")
            if not link.startswith("http") and name != "provenance.html":  # which has not been executed here
                assert not anchor or anchor in pages[name or file].anchors, link
                assert not name or name in pages, link
    assert "A-heading" in pages["sampling.html"].anchors


def test_nothing_is_loaded_from_the_network(params):
    site = publish_samples(params)
    for path in site.glob("*.html"):
        page = Page(path.read_text())
        for address in page.loaded:
            assert address.startswith("data:") or (site / unquote(address)).is_file(), address
        assert "<script" not in path.read_text()
    assert not re.search(r"@import|url\(\s*['\"]?http", (site / "style.css").read_text())


def test_videos_are_copied_by_content_and_unused_ones_removed(params):
    site = publish_samples(params)
    assert len(list((site / "media").glob("*.mp4"))) == 2
    write_executed(params, "sampling", HTML("<p>no video</p>"))
    publish.publish(params)
    assert not list((site / "media").iterdir())


def test_only_changed_pages_are_written_again(params):
    site = publish_samples(params)
    before = {path.name: path.stat().st_mtime_ns for path in site.glob("*.html")}
    write_executed(params, "overview", HTML("<p>new</p>"))
    publish.publish(params)
    written = {path.name for path in site.glob("*.html") if path.stat().st_mtime_ns != before[path.name]}
    assert written == {"index.html"}


def test_a_site_that_is_up_to_date_is_left_alone(params, monkeypatch):
    site = publish_samples(params)
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}
    for work in ("render", "stylesheet"):
        monkeypatch.setattr(publish, work, lambda *_: pytest.fail("something was made again"))
    publish.publish(params)
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before


def test_another_style_makes_every_page_again(params, tmp_path, monkeypatch):
    site = publish_samples(params)
    template = tmp_path / "template"
    shutil.copytree(publish.TEMPLATE, template)
    (template / "style.css").write_text("p { color: red }")
    monkeypatch.setattr(publish, "TEMPLATE", template)
    before = {path.name: path.stat().st_mtime_ns for path in site.glob("*.html")}
    publish.publish(params)
    assert (site / "style.css").read_text().endswith("p { color: red }")
    assert all(path.stat().st_mtime_ns != before[path.name] for path in site.glob("*.html"))


RENDER = """
import sys
from moviegen import config
from moviegen.report import publish
from tests.report.making import section
sys.stdout.write(publish.render(config.load("tiny"), section("data"), "mark"))
"""


def test_a_readers_own_templates_and_configuration_change_no_page(params, tmp_path):
    write_executed(params, "data", HTML("<p>shown</p>"))
    expected = publish.render(params, section("data"), "mark")
    for name in ("basic", "classic", "base"):
        template = tmp_path / "jupyter" / "nbconvert" / "templates" / name
        template.mkdir(parents=True)
        (template / "conf.json").write_text('{"base_template": null, "preprocessors": {"1": {"type": "none.Such"}}}')
        for file in ("index", "base", name):
            (template / f"{file}.html.j2").write_text("a template of the reader's own")
    for name in ("jupyter_config.py", "jupyter_nbconvert_config.py"):
        (tmp_path / name).write_text("get_config().TemplateExporter.exclude_output = True")
    done = subprocess.run(
        (sys.executable, "-c", RENDER),
        env=os.environ | {"JUPYTER_PATH": str(tmp_path / "jupyter"), "JUPYTER_CONFIG_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
