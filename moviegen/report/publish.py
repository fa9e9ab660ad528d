"""Executed notebooks to one HTML site: `outputs/<scale>/html/`. It can be read from disk, without a network."""

from __future__ import annotations

import functools
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from moviegen.config import Params, outputs_folder, project_root
from moviegen.report.sections import SECTIONS, Section
from moviegen.runs import fingerprint
from moviegen.runs.files import write_text
from moviegen.runs.hashes import file_hash, folder_hash

TEMPLATE = Path(__file__).parent / "template"
_LOCAL_MEDIA = re.compile(r'(?<=\s)(src|poster)="(?!data:|media/|https?:)([^"]+)"')
_PUBLISHED_MEDIA = re.compile(r'"media/([^"]+)"')
_MARK = re.compile(r'data-mark="(\w+)"')


def publish(params: Params) -> Path:
    """Writes every page whose notebook, or the template, changed; returns the first page."""
    folder, site = outputs_folder(params) / "html", _site_mark()
    marks = {section: _mark(section.executed(params), site) for section in SECTIONS}
    stale = {section: mark for section, mark in marks.items() if _mark_of(folder / section.page) != mark}
    if stale or not (folder / "style.css").is_file():
        write_text(folder / "style.css", stylesheet())
    for section, mark in stale.items():
        write_text(folder / section.page, _with_media(render(params, section, mark), folder))
    if stale:
        _remove_unused_media(folder)
    return folder / SECTIONS[0].page


def render(params: Params, section: Section, mark: str) -> str:
    """One section's page; media still point into the runs."""
    import nbformat

    executed = section.executed(params)
    if executed.is_file():
        notebook = nbformat.read(executed, as_version=4)
    else:
        text = f"# {section.title}\n\nThis section has not been executed yet: run `make report SCALE={params.scale}`."
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="missing")])
    position = SECTIONS.index(section)
    site = {
        "scale": params.scale,
        "sections": SECTIONS,
        "current": section,
        "headings": _headings(notebook),
        "previous": SECTIONS[position - 1] if position else None,
        "next": SECTIONS[position + 1] if position + 1 < len(SECTIONS) else None,
        "mark": mark,
    }
    body, _ = _exporter().from_notebook_node(notebook, resources={"site": site})
    return body


def stylesheet() -> str:
    """The template's style and the colours of code, light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    pages = (TEMPLATE / "style.css").read_text(encoding="utf-8")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{pages}"


@functools.cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter  # 1 s to import: not for a site that is up to date

    # named, as a reader's Jupyter folders may hold others of the same names
    own = f"{sys.prefix}/share/jupyter/nbconvert/templates"
    paths = [str(TEMPLATE), *(f"{own}/{name}" for name in ("basic", "classic", "base")), own]
    return HTMLExporter(template_name=TEMPLATE.name, template_paths=paths)


def _headings(notebook: Any) -> list[tuple[str, str]]:
    """(anchor, text) of the second-level headings, with nbconvert's anchors."""
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [(text.replace(" ", "-"), text) for text in re.findall(r"^## (.+?)\s*$", source, re.MULTILINE)]


def _with_media(body: str, folder: Path) -> str:
    """Copies the files a page shows into the site, named by their content, and points the page there."""

    def copied(match: re.Match[str]) -> str:
        attribute, address = match.groups()
        source = (project_root() / "notebooks" / unquote(address)).resolve()
        if not source.is_file():
            return match.group()
        name = f"{source.stem[:40]}-{file_hash(source)[:16]}{source.suffix}"
        target = folder / "media" / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            temporary = target.with_name(f".{name}")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        return f'{attribute}="media/{quote(name)}"'

    return _LOCAL_MEDIA.sub(copied, body)


def _remove_unused_media(folder: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.html")]
    used = {unquote(name) for page in pages for name in _PUBLISHED_MEDIA.findall(page)}
    for path in (folder / "media").glob("*"):
        if path.name not in used:
            path.unlink()


def _site_mark() -> dict[str, Any]:
    """What all pages are made from."""
    return {
        "template": folder_hash(TEMPLATE, (".css", ".j2", ".json")),
        "environment": file_hash(project_root() / "requirements.lock"),  # nbconvert and Pygments
        "code": fingerprint.code_hash(__name__, without=()),
        "contents": [(section.name, section.title, section.page) for section in SECTIONS],
    }


def _mark(executed: Path, site: dict[str, Any]) -> str:
    """What a page is made from; written into its head. Its notebook also says when the runs of its media ended."""
    return fingerprint.digest(site | {"notebook": file_hash(executed) if executed.is_file() else None})


def _mark_of(page: Path) -> str | None:
    if not page.is_file():
        return None
    with page.open(encoding="utf-8") as file:
        match = _MARK.search(file.read(2000))
    return match.group(1) if match else None
