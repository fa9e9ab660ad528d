"""Executed notebooks to one HTML site: `outputs/<scale>/html/`. It can be read from disk, without a network.

Beside the scales, `outputs/html/index.html` lists their reports.
"""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bs4 import BeautifulSoup, Tag

from moviegen.config import Params, outputs_folder, outputs_root, project_root
from moviegen.report import addresses, bibliography, documents, scales, search, themes
from moviegen.report.sections import SECTIONS, Section
from moviegen.report.templates import TEMPLATE
from moviegen.runs import fingerprint
from moviegen.runs.files import write_text
from moviegen.runs.hashes import file_hash, folder_hash

MOST_BYTES = 15 * 2**20  # of a site: it is sent around, and opened on telephones
LARGEST_NAMED = 5


def publish(params: Params) -> Path:
    """Writes every page whose notebook, or the template, changed; returns the first page."""
    folder = outputs_folder(params) / "html"
    write_site(params, {section: section.shown(params) for section in SECTIONS}, folder)
    return folder / SECTIONS[0].page


def write_site(params: Params, notebooks: Mapping[Section, Path], folder: Path) -> None:
    """The same of executed notebooks that lie anywhere, into any folder."""
    site = _site_mark()
    marks = {section: _mark(notebook, site) for section, notebook in notebooks.items()}
    stale = {section: mark for section, mark in marks.items() if _mark_of(folder / section.page) != mark}
    if stale or not all((folder / name).is_file() for name in ("style.css", "site.js", "search.js")):
        _write_shared(folder)
        _write_pages(params, {section: (notebooks[section], mark) for section, mark in stale.items()}, folder)
        _warn_of_size(folder)


def render(params: Params, section: Section, executed: Path, mark: str) -> str:
    """One section's page as nbconvert makes it; media still point into the runs, and nothing is numbered."""
    import nbformat

    if executed.is_file():
        notebook = nbformat.read(executed, as_version=4)
        addresses.for_site(notebook, section)
    else:
        text = f"# {section.title}\n\nThis section has not been executed yet: run `make report SCALE={params.scale}`."
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="missing")])
    position = SECTIONS.index(section)
    return _converted(
        notebook,
        title=section.title,
        kicker=f"Stage {section.stage} of 3" if section.stage else "",
        scale=params.scale,
        notebook=section.notebook,
        contents=[(one.page, one.title) for one in SECTIONS],
        current=section.page,
        previous=SECTIONS[position - 1] if position else None,
        next=SECTIONS[position + 1] if position + 1 < len(SECTIONS) else None,
        mark=mark,
    )


def stylesheet() -> str:
    """What all pages look like."""
    return themes.stylesheet(TEMPLATE)


def _converted(executed: Any, **site: Any) -> str:
    """A notebook as a page; `site`: what the template says around it."""
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.metadata["shows"] = documents.shown_by(cell.source)
    body, _ = _exporter().from_notebook_node(executed, resources={"site": site})
    return body


@functools.cache
def _exporter() -> Any:
    from moviegen.report.markdown import PageExporter  # 1 s to import: not for a site that is up to date

    # named, as a reader's Jupyter folders may hold others of the same names
    own = f"{sys.prefix}/share/jupyter/nbconvert/templates"
    paths = [str(TEMPLATE), *(f"{own}/{name}" for name in ("basic", "classic", "base")), own]
    return PageExporter(template_name=TEMPLATE.name, template_paths=paths)


def _write_shared(folder: Path) -> None:
    write_text(folder / "style.css", stylesheet())
    write_text(folder / "site.js", (TEMPLATE / "site.js").read_text(encoding="utf-8"))


def _write_pages(params: Params, stale: Mapping[Section, tuple[Path, str]], folder: Path) -> None:
    """The stale pages, by notebook and mark; others where what they refer to changed; and the search index of all."""
    pages = {}
    for chapter, section in enumerate(SECTIONS, 1):
        if section in stale:
            page = documents.parse(render(params, section, *stale[section]))
            documents.finish(page, chapter)
            _take_media(page, folder, section.executed(params).parent)
        else:
            page = documents.parse((folder / section.page).read_text(encoding="utf-8"))
        pages[section.page] = page
    before = {section.page: str(pages[section.page]) for section in SECTIONS if section not in stale}
    documents.refer(pages)
    for name, page in pages.items():
        if before.get(name) != (text := str(page)):
            write_text(folder / name, text)
    write_text(folder / "search.js", search.index(pages))
    _remove_unused_media(folder, pages.values())


def publish_scales() -> None:
    """Writes the page above all reports, where one of them changed; what is passed over is said."""
    outputs = outputs_root()
    folder, first_pages = outputs / "html", scales.first_pages(outputs)
    made_from = {scale: file_hash(page) if page.is_file() else None for scale, page in first_pages.items()}
    mark = fingerprint.digest({**_site_mark(), "reports": made_from})
    if _mark_of(folder / "index.html") == mark and (folder / "style.css").is_file():
        return
    reports = scales.found(outputs)
    for report in reports:
        if report.problem:
            print(f"reports: {scales.passed_over(report)}", flush=True)
    page = documents.parse(
        _converted(
            scales.notebook(reports),
            title="Reports",
            contents=[(report.page, report.scale) for report in reports if not report.problem],
            mark=mark,
        )
    )
    documents.finish(page, None)
    _write_shared(folder)
    write_text(folder / "index.html", str(page))


def _take_media(page: BeautifulSoup, folder: Path, notebooks: Path) -> None:
    """Copies the files a page shows into the site, and points the page there. A video is loaded once it is played.

    Args:
        notebooks: the folder from which their films are told; see `addresses.for_executed`.
    """
    for part in page.find_all(["video", "img"], src=True):
        address = str(part["src"])
        source = (notebooks / unquote(address)).resolve()
        if address.startswith(("data:", "http:", "https:")) or not source.is_file():
            continue
        target = folder / "media" / f"{source.stem[:40]}-{file_hash(source)[:16]}{source.suffix}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            temporary = target.with_name(f".{target.name}")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        part["src"] = f"media/{quote(target.name)}"
        if part.name == "video":
            _show_first_frame(part, target)


def _show_first_frame(player: Tag, video: Path) -> None:
    """Has a player show it until it is played, at its size; of a video that cannot be read it shows nothing."""
    from PIL import Image

    from moviegen.data import videos  # 1 s to import: not for a site that is up to date

    poster = video.with_suffix(".jpg")
    try:
        if not poster.exists():
            videos.write_image(poster, videos.read_frames(video, [0])[0])
        with Image.open(poster) as image:
            width, height = image.size
    except (videos.BrokenVideo, OSError):
        return
    player.attrs |= {
        "poster": f"media/{quote(poster.name)}",
        "preload": "none",
        "width": str(width),
        "height": str(height),
    }


def _remove_unused_media(folder: Path, pages: Iterable[BeautifulSoup]) -> None:
    used = {name for page in pages for name in _published_media(page)}
    for path in (folder / "media").glob("*"):
        if path.name not in used:
            path.unlink()


def _published_media(page: BeautifulSoup) -> Iterator[str]:
    for part in page.find_all(["video", "img"]):
        for address in (str(part.get("src", "")), str(part.get("poster", ""))):
            if address.startswith("media/"):
                yield unquote(address.removeprefix("media/"))


def _warn_of_size(folder: Path) -> None:
    """Says what is largest where a site is larger than it should be."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if (total := sum(sizes.values())) > MOST_BYTES:
        print(f"report: the site takes {_mib(total)}, more than {_mib(MOST_BYTES)}; the largest of it:", flush=True)
        for path in _largest(sizes):
            print(f"  {_mib(sizes[path])} {path}", flush=True)


def _largest(sizes: Mapping[Path, int]) -> Collection[Path]:
    return sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST_NAMED]


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _site_mark() -> dict[str, Any]:
    """What all pages are made from."""
    return {
        "template": folder_hash(TEMPLATE, (".css", ".j2", ".js", ".json")),
        "environment": file_hash(project_root() / "requirements.lock"),  # nbconvert and Pygments
        "code": fingerprint.code_hash(__name__, without=()),
        "references": file_hash(bibliography.path()),
        "contents": [(section.name, section.title, section.page) for section in SECTIONS],
    }


def _mark(executed: Path, site: dict[str, Any]) -> str:
    """What a page is made from; written into its head. Its notebook also says when the runs of its media ended."""
    return fingerprint.digest(site | {"notebook": file_hash(executed) if executed.is_file() else None})


def _mark_of(page: Path) -> str | None:
    if not page.is_file():
        return None
    with page.open(encoding="utf-8", errors="replace") as file:
        root = documents.parse(file.read(2000)).html
    return str(root["data-mark"]) if root and root.has_attr("data-mark") else None
