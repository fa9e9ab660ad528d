import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from IPython.display import HTML

from moviegen.report import documents, markup, media, publish
from moviegen.report.pages import sampling, transformer
from moviegen.report.sections import SECTIONS
from tests.report.making import finished, sampled, section, write_executed

LOADED = {"link": ("href",), "script": ("src",), "img": ("src",), "video": ("src", "poster"), "iframe": ("src",)}


def loaded(page):
    """What a page loads."""
    return [
        part[name] for tag, names in LOADED.items() for part in page.find_all(tag) for name in names if part.get(name)
    ]


def pages_of(site):
    return {path.name: documents.parse(path.read_text()) for path in site.glob("*.html")}


def publish_samples(params):
    shown = sampling.clips(sampled(params), None, "unseen"), sampling.schedules(50), transformer.sizes(params, None)
    write_executed(params, "sampling", *shown)
    site = publish.publish(params).parent
    publish.publish_scales()
    return site


def test_every_section_has_a_page_and_every_link_resolves(params):
    site = publish_samples(params)
    pages = pages_of(site)
    assert set(pages) == {section.page for section in SECTIONS}
    for file, page in pages.items():
        for link in page.find_all("a", href=True):
            name, _, anchor = link["href"].partition("#")
            if not name.startswith("http") and name != "provenance.html":  # which has not been executed here
                assert (site / (name or file)).is_file(), link
                assert not anchor or pages[name or file].find(id=anchor), link
    assert pages["sampling.html"].find(id="A-heading").name == "h2"


def test_nothing_is_loaded_from_the_network(params):
    site = publish_samples(params)
    for path in (*site.glob("*.html"), site.parents[1] / "html" / "index.html"):
        for address in loaded(documents.parse(path.read_text())):
            assert address.startswith("data:") or (path.parent / unquote(address)).is_file(), address
    assert not re.search(r"@import|url\(\s*['\"]?http", (site / "style.css").read_text())
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest", (site / "site.js").read_text())


def test_videos_are_copied_by_content_and_unused_ones_removed(params):
    site = publish_samples(params)
    assert len(list((site / "media").glob("*.mp4"))) == len(list((site / "media").glob("*.jpg"))) == 2
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
from moviegen.report import documents, markup, media, publish
from tests.report.making import section
params = config.load("tiny")
sys.stdout.write(publish.render(params, section("data"), section("data").shown(params), "mark"))
"""


def test_a_readers_own_templates_and_configuration_change_no_page(params, tmp_path):
    write_executed(params, "data", HTML("<p>shown</p>"))
    expected = publish.render(params, section("data"), section("data").shown(params), "mark")
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


def test_a_video_waits_with_its_first_frame_and_says_what_it_shows(params):
    page = pages_of(publish_samples(params))["sampling.html"]
    players = page.find_all("video")
    assert [player["aria-label"] for player in players] == ["trained here, seed 42", "the clip of this caption"]
    for player in players:
        assert player["preload"] == "none"
        assert {"loop", "muted", "playsinline", "controls"} <= set(player.attrs)
        assert "autoplay" not in player.attrs  # the script plays it, unless less motion is asked for
        assert (player["width"], player["height"]) == ("32", "32")
        assert player["poster"].endswith(".jpg")


def test_a_video_that_cannot_be_read_is_shown_without_a_poster(params):
    broken = finished(params, "sample").folder / "broken.mp4"
    broken.write_bytes(b"no video")
    write_executed(params, "sampling", markup.card(media.video(broken, "broken"), ""))
    (player,) = pages_of(publish.publish(params).parent)["sampling.html"].find_all("video")
    assert player["src"].startswith("media/broken-")
    assert "poster" not in player.attrs


def test_a_page_can_be_used_without_seeing_it(params):
    page = pages_of(publish_samples(params))["sampling.html"]
    assert page.html["lang"] == "en"
    assert page.find("a", class_="skip")["href"] == f"#{page.main['id']}"
    assert all(image.get("alt") for image in page.find_all("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.select(".plot > svg"))
    ids = [part["id"] for part in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {label["for"] for label in page.select("label[for]")} <= set(ids)
    for control in page.select("button, select, input"):
        assert control.get_text(strip=True) or page.find("label", attrs={"for": control.get("id")})
    assert all(nav["aria-label"] for nav in page.find_all("nav"))
    assert all(header["scope"] == "col" for header in page.select("thead th"))
    assert all(box["aria-label"] for box in page.select(".scroll"))


def test_without_scripts_nothing_dead_is_shown(params):
    page = pages_of(publish_samples(params))["sampling.html"]
    controls = page.select("button, select, input")
    assert len(controls) == 4
    assert all(control.has_attr("hidden") or control.find_parent(hidden=True) for control in controls)


def test_a_large_site_says_what_is_largest(params, monkeypatch, capsys):
    monkeypatch.setattr(publish, "MOST_BYTES", 2**20)
    publish_samples(params)
    assert "MiB" not in capsys.readouterr().out
    write_executed(params, "data", HTML(f"<p>{'x' * 2**21}</p>"))
    publish.publish(params)
    said = capsys.readouterr().out
    assert "more than 1.0 MiB" in said
    assert said[said.index("largest") :].splitlines()[1].split()[-1].endswith("data.html")
