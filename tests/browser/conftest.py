"""The published site in a real browser: `make test-site SCALE=smoke`. Without `--site` there is none to look at."""

from pathlib import Path

import pytest

from tests.browser import checks

SITELESS = "no published site is named: `make test-site SCALE=smoke` does, after `make report SCALE=smoke`"


def pytest_addoption(parser):
    parser.addoption("--site", type=Path, help="the folder of a published report: outputs/SCALE/html")


def pytest_generate_tests(metafunc):
    if "address" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--site", None)
    if folder is None:
        metafunc.parametrize("address", [pytest.param(None, marks=pytest.mark.skip(SITELESS))], ids=["no site"])
        return
    pages = sorted(folder.resolve().glob("*.html"))
    if folder.resolve() / "index.html" not in pages:
        raise pytest.UsageError(f"{folder} holds no report: run `make report` of this scale first")
    metafunc.parametrize("address", [page.as_uri() for page in pages], ids=[page.stem for page in pages])


@pytest.fixture(scope="session")
def site(pytestconfig):
    folder = pytestconfig.getoption("--site", None)
    return folder.resolve() if folder else pytest.skip(SITELESS)


@pytest.fixture(scope="session")
def browser(pytestconfig):
    """Chromium without a network. Where a site is named it must be there."""
    needed = pytestconfig.getoption("--site", None) is not None
    if not needed:
        pytest.importorskip("playwright", reason="Playwright is not installed: `make test-site` installs it")
    from playwright.sync_api import sync_playwright

    from moviegen.report.pdf import NoBrowser, chromium

    try:
        program = chromium()
    except NoBrowser as error:
        pytest.fail(str(error)) if needed else pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a page as a reader with these settings would; gives it with the list of what goes wrong on it."""
    contexts = []

    def opened(address, **settings):
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings)))
        page = contexts[-1].new_page()
        faults = checks.watch(page)
        page.goto(address)
        return page, faults

    yield opened
    for context in contexts:
        context.close()
