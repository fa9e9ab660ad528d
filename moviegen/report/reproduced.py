"""`python -m moviegen verify --against OUTPUTS`: whether a second report has the same numbers and the same figures.

All that runs left is compared, but for what a clock measured (`runs.repeated`); and of the pages every picture's and
clip's bytes, and every table but for columns and rows of such. Nothing is compared with a tolerance.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from bs4 import BeautifulSoup, Tag

from moviegen import runs
from moviegen.config import ConfigError, Params, outputs_folder
from moviegen.report import sections
from moviegen.runs import repeated
from moviegen.runs.files import checksum, read_json, write_json
from moviegen.runs.metrics import read_metrics
from moviegen.runs.run import flat

SHOWN = 10  # of what differs in a run or on a page
TABLES = (".csv", ".json", ".jsonl")  # compared value by value, as arrays of .npz are; other files byte by byte
PICTURES = ("svg", "img", "video")
ALL = ("all",)
# What pages show of clocks and of a machine's memory: columns by their heads, or a card as a whole ...
MEASURED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "tae-training.html#terms": ("s/step",),
    "tae-evaluation.html#scores": ("s/step",),
    "sampling.html#error_table": ("wall time (s)",),
    "sampling.html#error_curves": ALL,  # beside the errors, which the table has, it draws seconds
    "parallelism.html#speed": (
        "tokens/s", "waited for data (s a step)", "waited, of all time", "peak memory",
    ),
    "cost.html#timings": ("here", "here, update"),
    "cost.html#costs": ("s an update", "s a sample", "rate reached"),
    "cost.html#this_machine": ALL,
    "cost.html#steps_memory": ALL,
    "cost.html#memory_measured": ("measured",),
    # ... what other commands left beside one of the reports ...
    "parallelism.html#proven": ALL,
    "provenance.html#compared": ALL,
    "provenance.html#killed": ALL,
    # ... and how many numbers all that is written with
    "provenance.html#numbers": ("numbers",),
}  # fmt: skip
# ... and rows by their first cells
MEASURED_ROWS: Mapping[str, tuple[str, ...]] = {
    "index.html#numbers": ("stage 3, seconds",),
    "index.html#way": ("steps", "clip"),
    "index.html#summary": ("sampling (s/clip)",),
}


@dataclass(frozen=True)
class Compared:
    """How many values and pictures of a run or a page were compared, and which are not the same."""

    values: int
    pictures: int
    differences: tuple[str, ...]


def main(params: Params, other: Path) -> None:
    """Compares with the report below another outputs folder, and says what is not the same.

    Raises:
        ConfigError: there is no published report of this scale.
    """
    there = other / params.scale
    if not (there / "html" / sections.SECTIONS[0].page).is_file():
        raise ConfigError(f"--against {other}: no report of {params.scale} is published there: {there / 'html'}")
    found = compare(params, there)
    for name, one in found.items():
        print(f"{name}: {one.values} values, {one.pictures} pictures and clips, {len(one.differences)} not the same")
        for difference in one.differences[:SHOWN]:
            print(f"  {difference}")
    write_json(outputs_folder(params) / sections.COMPARISON, summary(params, found))
    if different := [name for name, one in found.items() if one.differences]:
        sys.exit(f"error: {', '.join(different)}: not the same in {there}: see above")


def compare(params: Params, there: Path) -> dict[str, Compared]:
    """Every finished run of these parameters, then every page, beside those of another report of the same scale."""
    of_runs = {
        run.folder.name: compare_folders(run.folder, there / "runs" / run.folder.name) for run in finished(params)
    }
    site = sections.published_site(params)
    pages = {section.page: _page(site, there / "html", section.page) for section in sections.SECTIONS}
    return of_runs | pages


def finished(params: Params) -> list[runs.Run]:
    """Those of all sections, but for measurements of this machine."""
    names = dict.fromkeys(name for section in sections.SECTIONS for name in section.programs(params))
    found = [runs.find(params, name) for name in names if name not in repeated.MEASURING]
    return [run for run in found if sections.is_complete(run)]


def summary(params: Params, found: Mapping[str, Compared]) -> dict[str, object]:
    """What a page says of a comparison."""
    return {
        "runs": sorted(run.name for run in finished(params)),
        "values": sum(one.values for one in found.values()),
        "pictures": sum(one.pictures for one in found.values()),
        "differing": {name: len(one.differences) for name, one in found.items() if one.differences},
    }


def compare_folders(here: Path, there: Path) -> Compared:
    """All files of two folders of the same run."""
    if not there.is_dir():
        return Compared(0, 0, (f"{there} is not there",))
    names = sorted({*repeated.files(here), *repeated.files(there)})
    pairs = [(name, _content(here / name), _content(there / name)) for name in names]
    different = [
        f"{name}{f', {place}' if place else ''}: {one.get(place, 'absent')} here, {other.get(place, 'absent')} there"
        for name, one, other in pairs
        for place in {**one, **other}
        if one.get(place) != other.get(place)
    ]
    return Compared(sum(len(one) for _, one, _ in pairs), 0, tuple(different))


def _content(path: Path) -> dict[str, str]:
    """What counts of a file: its values by their place, with all their digits, or its checksum."""
    if not path.is_file():
        return {}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: _digest(arrays[name]) for name in arrays if name not in repeated.MEASURED}
    if path.suffix not in TABLES:
        return {"": checksum(path)}
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = repeated.kept(list(csv.DictReader(file)))
    else:
        rows = (
            repeated.lines(read_metrics(path))
            if path.suffix == ".jsonl"
            else [repeated.kept(read_json(path, "remove it"))]
        )
    return {
        f"{f'line {number}, ' if len(rows) > 1 else ''}{name}": repr(value)
        for number, row in enumerate(rows, 1)
        for name, value in flat(row).items()
    }


def _digest(array: np.ndarray) -> str:
    """Of an array's bits, with its type and shape."""
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _page(site: Path, other: Path, name: str) -> Compared:
    files = [folder / name for folder in (site, other)]
    if not all(path.is_file() for path in files):
        return Compared(0, 0, tuple(f"{path} is not there" for path in files if not path.is_file()))
    return compare_pages(name, *(path.read_text(encoding="utf-8") for path in files))


def compare_pages(name: str, page: str, other: str) -> Compared:
    """The figures and tables of two published pages."""
    here, there = (dict(_cards(name, BeautifulSoup(text, "html.parser"))) for text in (page, other))
    pictures = {place: value for place, value in here.items() if place.endswith(PICTURES)}
    different = [
        f"{place}: {_said(here.get(place))} here, {_said(there.get(place))} there"
        for place in {**here, **there}
        if here.get(place) != there.get(place)
    ]
    return Compared(len(here) - len(pictures), len(pictures), tuple(different))


def _cards(name: str, page: BeautifulSoup) -> Iterator[tuple[str, str]]:
    """The pictures, by their bytes, and the cells of each card of a page, by their place; without what was measured."""
    for card in page.select("figure.card[id]"):
        place = f"{name}#{card['id']}"
        shown = place.rstrip("0123456789").removesuffix(
            "-"
        )  # of several cards of a cell all but the first are numbered
        columns, rows = MEASURED_COLUMNS.get(shown, ()), MEASURED_ROWS.get(shown, ())
        if columns == ALL:
            continue
        for number, picture in enumerate(card.find_all(PICTURES), 1):
            yield f"{place}, picture {number}, {picture.name}", str(picture)
        for number, cell in enumerate(_cells(card, columns, rows), 1):
            yield f"{place}, cell {number}", cell


def _cells(card: Tag, columns: Collection[str], rows: Collection[str]) -> Iterator[str]:
    """The texts of a table's cells, but for some columns and rows."""
    heads = [head.get_text(" ", strip=True) for head in card.select("thead th, thead td")]
    yield from heads
    for row in card.select("tbody tr"):
        cells = [cell.get_text(" ", strip=True) for cell in row.find_all(["td", "th"])]
        if cells[0] not in rows:
            named = zip_longest(heads, cells, fillvalue="")
            yield from (cell for head, cell in named if head not in columns)


def _said(content: str | None) -> str:
    return "nothing" if content is None else content if len(content) <= 80 else f"{content[:60]} ..."
