"""`python -m moviegen verify`: derives the published pages again from the runs, elsewhere, and compares."""

from __future__ import annotations

import filecmp
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from moviegen.config import ConfigError, Params, outputs_folder
from moviegen.report import crate, publish, reproduced, sections
from moviegen.report.derive import derive, forget
from moviegen.report.traced import Traced, trace

OUTPUT = "output_area"  # the class that nbconvert gives to what a cell shows
SHOWN = 10  # of a page's differences


def main(params: Params, options: Namespace) -> None:
    """Says of each page how many of its numbers and pictures came out again; ends with status 1 if anything did not.

    With `against`, of each run and page how much is the same in another report.
    """
    if options.against:
        return reproduced.main(params, Path(options.against))
    traces = verify(params)
    for page, traced in traces.items():
        print(f"{page}: {line(traced)}")
        for difference in traced.differences[:SHOWN]:
            print(f"  {difference}")
        if more := len(traced.differences[SHOWN:]):
            print(f"  and {more} more")
    numbers = sum(traced.numbers for traced in traces.values())
    print(f"all pages: {sum(traced.same_numbers for traced in traces.values())} of {numbers} numbers traced")
    if wrong := [page for page, traced in traces.items() if traced.differences]:
        sys.exit(f"error: {', '.join(wrong)}: not what the runs in {outputs_folder(params) / 'runs'} give: see above")


def line(traced: Traced) -> str:
    """Of a page, in words."""
    pictures = f"{traced.same_pictures} of {traced.pictures} pictures and clips"
    return f"{traced.same_numbers} of {traced.numbers} numbers, {pictures} traced"


def verify(params: Params) -> dict[str, Traced]:
    """By file, how a published page compares with the same page made again; and files of the site that differ.

    Raises:
        ConfigError: nothing is published, or a section is older than what it is made from.
    """
    site = sections.published_site(params)
    if older := [section.title for section in sections.SECTIONS if not sections.is_current(params, section)]:
        raise ConfigError(f"{', '.join(older)}: older than the notebook, code or runs: run `make report` first")
    forget()
    notebooks = {section: derive(params, section).notebook for section in sections.SECTIONS}
    with tempfile.TemporaryDirectory(prefix="moviegen-verify-") as folder:
        again = _published(params, notebooks, Path(folder))
        traces = {path.name: _trace(site / path.name, path) for path in sorted(again.glob("*.html"))}
        others = _files(again)
        differ = {
            path: "is not the same file as when it is made again"
            for path in others
            if path.suffix != ".html" and not _is_same(site / path, again / path)
        }
        differ |= {path: "is not there when the site is made again" for path in _files(site) if path not in others}
        return traces | {str(path): Traced(0, 0, 0, 0, (f"{site / path} {said}",)) for path, said in differ.items()}


def _published(params: Params, notebooks: Mapping[sections.Section, Any], folder: Path) -> Path:
    """Publishes some notebooks below a folder; returns where."""
    files = {section: folder / section.executed(params).name for section in notebooks}
    for section, path in files.items():
        nbformat.write(notebooks[section], path)
    publish.write_site(params, files, folder / "html")
    return folder / "html"


def _files(site: Path) -> list[Path]:
    """The files of a site but for its description of runs; what is half written begins with a dot."""
    found = (path.relative_to(site) for path in sorted(site.rglob("[!.]*")) if path.is_file())
    return [path for path in found if str(path) != crate.FILE]


def _trace(page: Path, again: Path) -> Traced:
    if not page.is_file():
        return Traced(0, 0, 0, 0, (f"{page} is not published",))
    return trace(page.read_text(encoding="utf-8"), again.read_text(encoding="utf-8"), OUTPUT)


def _is_same(path: Path, other: Path) -> bool:
    return path.is_file() and filecmp.cmp(path, other, shallow=False)
