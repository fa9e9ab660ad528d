"""Every page of a published report, as a reader opens it: from disk, without a network."""

import pytest

from tests.browser import checks

# Hues are all that differs between the themes.
RULES = {"light": None, "dark": ["color-contrast"]}


@pytest.fixture(scope="session")
def screenshots(site):
    folder = site.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


def name_of(address):
    return address.rpartition("/")[2].removesuffix(".html")


def test_all_of_a_page_is_there_and_moves(address, open_page):
    page, faults = open_page(address)
    assert checks.doubled_ids(checks.anchors(page)["ids"]) == []
    checks.open_details(page)
    assert checks.broken_pictures(page) == []
    assert checks.still_videos(page) == []
    assert faults == []


def test_sliders_move_what_is_beside_them(address, open_page):
    page, faults = open_page(address, reduced_motion="reduce")
    assert checks.stuck_sliders(page) == []
    assert faults == []


@pytest.mark.parametrize("theme", RULES)
def test_anyone_can_read_it(theme, address, open_page, screenshots):
    page, _ = open_page(address, color_scheme=theme)
    page.screenshot(path=screenshots / f"{name_of(address)}-{theme}.png", full_page=True)
    checks.open_details(page)
    assert checks.inaccessible(page, RULES[theme]) == []


def test_it_fits_a_narrow_screen(address, open_page, screenshots):
    page, _ = open_page(address, viewport={"width": checks.NARROW, "height": 844})
    page.screenshot(path=screenshots / f"{name_of(address)}-narrow.png", full_page=True)
    assert checks.too_wide(page) == []
    checks.open_details(page)
    assert checks.too_wide(page) == []


def test_every_link_leads_somewhere(site, open_page):
    found = {str(path): checks.anchors(open_page(path.as_uri())[0]) for path in site.glob("*.html")}
    ids_of = {path: set(one["ids"]) for path, one in found.items()}
    links = [link for one in found.values() for link in one["links"]]
    assert any(link.startswith((site / "provenance.html").as_uri() + "#") for link in links)
    assert checks.dead_links(links, ids_of) == []


def test_a_link_to_a_run_shows_its_entry_in_the_appendix(site, open_page):
    from playwright.sync_api import expect

    page, _ = open_page((site / "data.html").as_uri())
    link = page.locator("main a.run[href^='provenance.html#']:visible").first
    name = link.get_attribute("href").partition("#")[2]
    link.click()
    entry = page.locator(f"[id='{name}']")
    expect(entry).to_be_in_viewport()  # it scrolls there
    assert name in entry.inner_text()
