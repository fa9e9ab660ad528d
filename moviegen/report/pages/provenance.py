"""The appendix: each run in full, which figure or table of which page it fed, and how many numbers come out again."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup
from IPython.display import HTML
from markupsafe import Markup

from moviegen import runs
from moviegen.config import Params, project_root
from moviegen.report import bibliography, markup, published, sections
from moviegen.report.derive import Derivation, derive, html_outputs
from moviegen.report.pages.provenance_again import compared, killed
from moviegen.report.provenance import cost, why_absent
from moviegen.report.reproduce import commands
from moviegen.report.tables import table
from moviegen.report.templates import filled
from moviegen.report.traced import Traced, trace
from moviegen.report.wording import in_checkout
from moviegen.runs import Run, fingerprint
from moviegen.runs.hashes import file_hash

__all__ = ["compared", "details", "facts", "figures_and_runs", "killed", "numbers", "references"]


def details(made: Sequence[Run | None]) -> HTML:
    """Each finished run, to which captions link: its command, its machine, versions and, folded, its parameters."""
    return HTML("".join(_details(run) for run in made if run) or str(markup.note("No run has finished yet.").data))


def figures_and_runs(params: Params) -> HTML:
    """Which run, and which of its files, fed which figure or table, and the cell that shows it."""
    rows = []
    for section in _others():
        derived = _derived(params, section)
        for place, cell in enumerate(_cells(section.shown(params))):
            files = derived.read[place] if derived else ()
            for names, caption in _cards(html_outputs(cell)):
                links = [_read(name, files) for name in names]
                rows.append(
                    {
                        "page": f'<a href="{section.page}">{html.escape(section.title)}</a>',
                        "figure or table": caption,
                        "runs, and the files read": ", ".join(links) or "computed, or published elsewhere",
                        "cell": f"{section.notebook}, {_call(cell)}",
                    }
                )
    return table(rows, "Figures and tables, and the runs that fed them", raw=("page", "runs, and the files read"))


def _cards(content: str) -> Iterator[tuple[list[str], str]]:
    """The runs and the caption of each figure or table of a piece of HTML."""
    for card in BeautifulSoup(content, "html.parser").select("figure.card"):
        if title := card.select_one("figcaption .title"):
            yield str(card["data-runs"]).split(), title.get_text()


def numbers(params: Params) -> HTML:
    """How many numbers each page shows, and how many came out the same when they were derived again from the runs."""
    rows, found = [], []
    for section in _others():
        page = f'<a href="{section.page}">{html.escape(section.title)}</a>'
        if (derived := _derived(params, section)) is None:
            rows.append({"page": page} | dict.fromkeys(("numbers", "pictures and clips"), _why_not(params, section)))
            continue
        traced = trace(_shown(_cells(section.shown(params))), _shown(derived.notebook.cells))
        found.append(traced)
        rows.append({"page": page} | _of(traced))
    all_numbers, same = sum(one.numbers for one in found), sum(one.same_numbers for one in found)
    sources = "runs' files, parameters, the plan's counting and published tables"
    return table(rows, f"{same:,} of {all_numbers:,} numbers traced: derived again from {sources}", raw=("page",))


def _others() -> list[sections.Section]:
    """All pages but this one, of which there is none, or an older one, while it is made."""
    return [section for section in sections.SECTIONS if not section.lists_figures]


def _derived(params: Params, section: sections.Section) -> Derivation | None:
    """None of what was not executed with the runs of now."""
    if not sections.is_current(params, section):
        return None
    return derive(params, section)


def _why_not(params: Params, section: sections.Section) -> str:
    """Why a page was not derived again: it failed, or a run of its is not there, or it is older than its runs."""
    if section.failed(params).is_file():
        return "failed: its page says where"
    for name in section.programs(params):
        if not sections.is_complete(runs.find(params, name)):
            return why_absent(params, name)
    return f"older than its runs: open {section.notebook}"


def _of(traced: Traced) -> dict[str, str]:
    return {
        "numbers": f"{traced.same_numbers:,} of {traced.numbers:,}",
        "pictures and clips": f"{traced.same_pictures} of {traced.pictures}",
    }


def _read(name: str, files: Iterable[Path]) -> str:
    """A run, and those of some files that are its own."""
    inside = (path.as_posix().partition(f"/runs/{name}/")[2] for path in files)
    own = [file for file in inside if file and file != "manifest.json"]
    return markup.run_link(name) + (f" ({html.escape(', '.join(own))})" if own else "")


def _shown(cells: Iterable[Any]) -> str:
    return "".join(map(html_outputs, cells))


def _call(cell: Any) -> str:
    """What a cell shows: the function that its last line calls."""
    return "".join(cell["source"]).rpartition("\n")[2].partition("(")[0]


def _cells(notebook: Path) -> Sequence[Any]:
    """The cells of an executed notebook; none where it is not there."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.is_file() else ()


def facts() -> HTML:
    """Numbers that notebooks state in words of their own, as no parameter and no run here knows them."""
    texts = {section.topic: section.source.read_text(encoding="utf-8") for section in sections.SECTIONS}
    rows = [
        {"notebook": fact.notebook, "words": fact.words, "source": fact.source}
        for fact in published.FACTS
        if fact.words in texts[fact.notebook]
    ]
    return table(rows, "Published numbers in the text, and their sources")


def references() -> HTML:
    """The works that the pages cite."""
    return HTML(bibliography.listed())


def _deterministic(manifest: Mapping[str, Any]) -> str:
    """Whether a run's cards were told to add in one order (`launch.deterministic`)."""
    if "deterministic" not in manifest:
        return "-"
    return "asked for" if manifest["deterministic"] else "not asked for: on cards a repetition differs in the last bits"


def _details(run: Run) -> str:
    manifest = run.manifest
    upstream = ", ".join(map(markup.run_link, manifest.get("upstream", {}).values())) or "nothing"
    facts = {
        "command": Markup("<code>{}</code>").format(in_checkout(manifest.get("command", ""))),
        "built on": Markup(upstream),
        "inputs": _inputs(run) or "nothing else",
        "seed": run.params.seed,
        "finished": f"{manifest.get('finished', '-')}, after {cost(manifest)}",
        "commit": manifest.get("commit", "-"),
        "machine": _machine(manifest.get("machine")),
        "operators": manifest.get("operators", "-"),
        "deterministic": _deterministic(manifest),
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items()),
        "lock file": f"requirements.lock, SHA-256 {file_hash(project_root() / 'requirements.lock')}",
        "fingerprint": run.fingerprint,
    }
    parameters = yaml.safe_dump(manifest.get("parameters", {}), sort_keys=False)
    return filled("run", run=run.name, facts=facts, again=commands([run]), parameters=parameters)


def _inputs(run: Run) -> str:
    """The files and folders that a run's parameters name, by what they hold."""
    named = {name: path for name, path in run.program.local_paths(run.params).items() if path}
    return ", ".join(f"{path} ({fingerprint.content_hash(name, path)})" for name, path in named.items())


def _machine(machine: dict[str, Any] | None) -> str:
    if not machine:
        return "-"
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}"
