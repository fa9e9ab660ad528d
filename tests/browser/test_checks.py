"""That the checks see what is wrong: each on a page that has the fault, and on one that has not."""

import base64

import pytest

from tests.browser import checks

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>T</title><link rel="icon" href="data:,">
</head><body><main><h1>T</h1>{}</main></body></html>"""
SLIDER = '<figure><label>n <input type="range" min="0" max="3" value="3"{}></label><output>3</output></figure>'
PIXEL = base64.b64encode(b"GIF89a\x01\0\1\0\x80\0\0\0\0\0\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;").decode()


@pytest.fixture
def shown(tmp_path, open_page):
    """A page with this content, opened, and its faults."""

    def opened(content, **settings):
        path = tmp_path / "page.html"
        path.write_text(PAGE.format(content), encoding="utf-8")
        return open_page(path.as_uri(), **settings)

    return opened


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<p>whole</p>", None),
        ("<script>console.error('of the page')</script>", "console: of the page"),
        ("<script>missing()</script>", "script: missing is not defined"),
        ("<img src='missing.png' alt='x'>", "does not load"),
        ("<img src='https://example.org/x.png' alt='x'>", "asks a network: https://example.org/x.png"),
    ],
)
def test_what_the_browser_reports(content, fault, shown):
    page, faults = shown(content)
    page.wait_for_load_state("networkidle")
    assert any(fault in one for one in faults) if fault else faults == []


@pytest.mark.parametrize(("data", "is_broken"), [(PIXEL, False), ("R0lGODlh", True)])
def test_pictures(data, is_broken, shown):
    page, _ = shown(f'<img alt="a pixel" src="data:image/gif;base64,{data}">')
    assert checks.broken_pictures(page) == (["a pixel"] if is_broken else [])


@pytest.mark.parametrize("how", ["by itself", "by the space bar", "not at all"])
def test_videos(how, tmp_path, shown):
    import av
    import numpy as np

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"bf": "0"})
        stream.width = stream.height = 32
        for value in range(1 if how == "not at all" else 16):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * value, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if how == "not at all":
        (tmp_path / "clip.mp4").write_bytes(b"no film")
    page, _ = shown(f'<video src="clip.mp4" controls muted loop {"autoplay" if how == "by itself" else ""}></video>')
    assert checks.still_videos(page, 1000) == (["clip.mp4"] if how == "not at all" else [])


def test_links_and_ids(shown, tmp_path):
    page, _ = shown(
        '<p id="a b">x</p><p id="a b">y</p><a href="#a%20b">1</a><a href="#c">2</a><a href="gone.html">3</a>'
        '<a href="https://example.org">4</a>'
    )
    found = checks.anchors(page)
    assert checks.doubled_ids(found["ids"]) == ["a b"]
    here = (tmp_path / "page.html").as_uri()
    dead = checks.dead_links(found["links"], {str(tmp_path / "page.html"): set(found["ids"])})
    assert dead == sorted([f"{here}#c", (tmp_path / "gone.html").as_uri()])


@pytest.mark.parametrize("is_heard", [True, False])
def test_sliders(is_heard, shown):
    heard = ' oninput="this.parentNode.nextElementSibling.value = this.value"'
    page, _ = shown(SLIDER.format(heard) + SLIDER.format(heard if is_heard else ""))
    assert len(checks.stuck_sliders(page)) == (0 if is_heard else 1)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("<p>black on white</p>", None),
        ('<p style="color: #aaa">grey on white</p>', "color-contrast (serious)"),
        ("<details><summary>code</summary><table><tr><th></th></tr></table></details>", "empty-table-header (minor)"),
    ],
)
def test_what_some_cannot_read(content, rule, shown):
    page, _ = shown(content)
    checks.open_details(page)
    found = checks.inaccessible(page)
    assert [one.startswith(rule) for one in found] == [True] if rule else found == []


@pytest.mark.parametrize(("width", "is_too_wide"), [(300, False), (500, True)])
def test_pages_that_scroll_sideways(width, is_too_wide, shown):
    page, _ = shown(f'<div style="width: {width}px">x</div>', viewport={"width": checks.NARROW, "height": 844})
    assert bool(checks.too_wide(page)) == is_too_wide
