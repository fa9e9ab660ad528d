"""`python -m moviegen pdf`: the published site as one PDF, section after section, printed by the system's Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from argparse import Namespace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from markupsafe import Markup

from moviegen.config import ConfigError, Params, outputs_folder
from moviegen.report.documents import heading_text
from moviegen.report.sections import SECTIONS, Section
from moviegen.report.templates import filled
from moviegen.runs.files import write_text

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TITLE = "MindSpore Movie Gen Report"
PATIENCE = 600  # seconds


class NoBrowser(ConfigError):
    """There is no Chromium here; the message says how to get one."""


def main(params: Params, options: Namespace) -> None:
    """Prints the site of these parameters as `outputs/<scale>/report.pdf`."""
    outputs = outputs_folder(params)
    write(outputs / "html", outputs / "report.pdf", params.scale)
    print(f"report: {outputs / 'report.pdf'}")


def chromium() -> str:
    """The path of the system's Chromium.

    Raises:
        NoBrowser: there is none.
    """
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise NoBrowser(f"none of {', '.join(PROGRAMS)} is on PATH: install one, as by `apt-get install chromium`")
    return found


def write(site: Path, target: Path, scale: str) -> None:
    """Prints a published site.

    Raises:
        ConfigError: a page of it is missing, or Chromium printed nothing; the message has its last words.
    """
    program = chromium()
    if missing := [section.page for section in SECTIONS if not (site / section.page).is_file()]:
        raise ConfigError(f"{site} lacks {', '.join(missing)}: `make report SCALE={scale}` publishes the report")
    whole = site / ".print.html"  # beside the pages: it shows their media
    printed = target.with_name(f".{target.name}")
    try:
        write_text(whole, merged({section: (site / section.page).read_text("utf-8") for section in SECTIONS}, scale))
        _print(program, whole, printed)
        printed.replace(target)
    finally:
        whole.unlink(missing_ok=True)
        printed.unlink(missing_ok=True)


def merged(pages: dict[Section, str], scale: str) -> str:
    """One page of what all pages hold, without scripts; what linked from one to another links to a place in it."""
    soups = {section: BeautifulSoup(text, "html.parser") for section, text in pages.items()}
    linked = set()
    for section, soup in soups.items():
        for link in soup.select("a[href]"):
            if place := _place(section, str(link["href"])):
                link["href"] = f"#{place}"
                linked.add(place)
            elif not urlsplit(str(link["href"])).scheme:
                del link["href"]  # a file of this machine
    bodies = []
    for section, soup in soups.items():
        for one in soup.select("script, nav"):
            one.decompose()
        for video in soup.select("video"):  # its first frame, and no handles
            video["preload"] = "auto"
            del video["controls"]
        for one in soup.select("[id]"):
            place = f"{section.name}:{one['id']}"
            if place in linked:  # styles may name the others
                one["id"] = place
        if soup.main is None:
            raise ConfigError(f"{section.page} has no <main>: `make html` publishes it again")
        for heading in soup.main.select("h1"):
            if (
                heading_text(heading) == TITLE
            ):  # the whole begins with it: the page gets the name it has in the contents
                heading.string = section.title
        soup.main["id"] = section.name
        bodies.append(Markup(soup.main))
    return filled("print", title=TITLE, scale=scale, sections=list(pages), bodies=bodies)


def _place(section: Section, address: str) -> str | None:
    """What the target of a page's link is called in the whole; None: it lies elsewhere."""
    page, _, anchor = address.partition("#")
    for other in SECTIONS:
        if page == other.page or (not page and other is section):
            return f"{other.name}:{unquote(anchor)}" if anchor else other.name
    return None


def _print(program: str, page: Path, target: Path) -> None:
    """Chromium, without a network and without the user's settings.

    Raises:
        ConfigError: it printed nothing.
    """
    with tempfile.TemporaryDirectory(prefix="moviegen-chromium-") as profile:
        command = (
            program,
            "--headless",
            "--no-sandbox",  # containers and root have none, and the pages are the report's own
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--generate-pdf-document-outline",
            "--no-pdf-header-footer",
            f"--print-to-pdf={target}",
            page.as_uri(),
        )
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE).stderr
    if not target.is_file():
        raise ConfigError(f"{program} printed nothing: {said.strip()[-500:]}")
