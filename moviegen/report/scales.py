"""The page above all reports: which there are below `outputs/`, and their results side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moviegen.report import documents

RESULTS = "summary"  # the anchor of the table that is compared: what shows it on the first page
VALUE = "value"  # and its column; the first one says of what


@dataclass(frozen=True)
class Report:
    """A report that was published, or why there is none to be read."""

    scale: str
    results: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def page(self) -> str:
        """Its first page, as linked from the page above all reports."""
        return f"../{quote(self.scale)}/html/index.html"


def first_pages(outputs: Path) -> dict[str, Path]:
    """The first page of each scale that has runs or pages, whether it is there or not."""
    folders = sorted(folder for folder in outputs.glob("*") if (folder / "runs").is_dir() or (folder / "html").is_dir())
    return {folder.name: folder / "html" / "index.html" for folder in folders}


def found(outputs: Path) -> list[Report]:
    """Every scale's report; one that is missing or damaged says so."""
    return [_read(scale, page) for scale, page in first_pages(outputs).items()]


def notebook(reports: Sequence[Report]) -> Any:
    """The page as a notebook, which is published as the others are."""
    from nbformat import v4

    from moviegen.report import markup  # slow to import, as IPython is: not for a site that is up to date

    text = (
        "# Reports\n\nEach report was made with the parameters of one scale, and holds what was measured with them. "
        "Scales differ in the data, the sizes and the length of training: their numbers stand beside each other to be "
        "looked up, and are not a ranking."
    )
    pieces = [_compared([report for report in reports if not report.problem])]
    pieces += [markup.note(html.escape(passed_over(report))) for report in reports if report.problem]
    cell = v4.new_code_cell()
    cell.outputs = [v4.new_output("display_data", data={"text/html": piece.data}) for piece in pieces]
    return v4.new_notebook(cells=[v4.new_markdown_cell(text), cell])


def passed_over(report: Report) -> str:
    """Why a scale is not among the results."""
    return f"{report.scale} is passed over: {report.problem}."


def _compared(reports: Sequence[Report]) -> Any:
    from moviegen.report import markup
    from moviegen.report.tables import table

    if not reports:
        return markup.note("No report has been published yet.")
    names = dict.fromkeys(name for report in reports for name in report.results)
    rows = [{"": "report"} | {one.scale: f'<a href="{one.page}">{html.escape(one.scale)}</a>' for one in reports}]
    rows += [
        {"": html.escape(name)} | {one.scale: html.escape(one.results.get(name, "-")) for one in reports}
        for name in names
    ]
    return table(rows, "Results of each report's recipe", raw=rows[0])


def _read(scale: str, page: Path) -> Report:
    if not page.is_file():
        return Report(scale, problem="it has runs, but no report has been published")
    try:
        document = documents.parse(page.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return Report(scale, problem=f"{page.name} cannot be read ({error})")
    results = document.select_one(f"figure#{RESULTS} table")
    header, *rows = [[cell.get_text(" ", strip=True) for cell in row.select("th, td")] for row in
                     (results.select("tr") if results else [])] or [[]]  # fmt: skip
    if VALUE not in header:
        return Report(scale, problem=f"{page.name} holds no table of results")
    column = header.index(VALUE)
    return Report(scale, {row[0]: row[column] for row in rows if len(row) == len(header)})
