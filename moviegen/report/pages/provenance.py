"""The appendix: each run in full, and which figure or table of which page it fed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from IPython.display import HTML

from moviegen.config import Params, project_root
from moviegen.report import markup, published, sections
from moviegen.report.provenance import cost
from moviegen.report.tables import table
from moviegen.runs import Run

_CARD = re.compile(r'<figure class="card" data-runs="([^"]*)">.*?<span class="title">(.*?)</span>', re.DOTALL)


def details(runs: Sequence[Run | None]) -> HTML:
    """Each finished run, to which captions link: its command, its machine, versions and, folded, its parameters."""
    return HTML("".join(_details(run) for run in runs if run) or str(markup.note("No run has finished yet.").data))


def figures_and_runs(params: Params) -> HTML:
    """Which run fed which figure or table, read off the executed notebooks."""
    rows = []
    for section in sections.SECTIONS:
        for names, caption in _cards(section.executed(params)):
            links = ", ".join(markup.run_link(name) for name in names) or "computed, or published elsewhere"
            page = f'<a href="{section.page}">{html.escape(section.title)}</a>'
            rows.append({"page": page, "figure or table": html.unescape(caption), "runs": links})
    return table(rows, "Figures and tables, and the runs that fed them", raw=("page", "runs"))


def facts() -> HTML:
    """Numbers that notebooks state in words of their own, as no parameter and no run here knows them."""
    texts = {section.topic: section.source.read_text(encoding="utf-8") for section in sections.SECTIONS}
    rows = [
        {"notebook": fact.notebook, "words": fact.words, "source": fact.source}
        for fact in published.FACTS
        if fact.words in texts[fact.notebook]
    ]
    return table(rows, "Published numbers in the text, and their sources")


def _deterministic(manifest: Mapping[str, Any]) -> str:
    """Whether a run's cards were told to add in one order (`launch.deterministic`)."""
    if "deterministic" not in manifest:
        return "-"
    return "asked for" if manifest["deterministic"] else "not asked for: on cards a repetition differs in the last bits"


def _details(run: Run) -> str:
    manifest = run.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    upstream = ", ".join(map(markup.run_link, manifest.get("upstream", {}).values())) or "nothing"
    facts = {
        "command": f"<code>{html.escape(manifest.get('command', '').replace(f'{project_root()}/', ''))}</code>",
        "built on": upstream,
        "finished": html.escape(f"{manifest.get('finished', '-')}, after {cost(manifest)}"),
        "commit": html.escape(manifest.get("commit", "-")),
        "machine": html.escape(_machine(manifest.get("machine"))),
        "operators": html.escape(manifest.get("operators", "-")),
        "deterministic": _deterministic(manifest),
        "versions": html.escape(versions),
        "fingerprint": run.fingerprint,
    }
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    parameters = html.escape(yaml.safe_dump(manifest.get("parameters", {}), sort_keys=False))
    return (
        f'<details class="run" id="{run.name}" open><summary><code>{run.name}</code></summary><dl>{items}</dl>'
        f"<details><summary>Its parameters</summary><pre>{parameters}</pre></details></details>"
    )


def _machine(machine: dict[str, Any] | None) -> str:
    if not machine:
        return "-"
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}"


def _cards(notebook: Path) -> Iterable[tuple[list[str], str]]:
    """The runs and the caption of each figure and table that an executed notebook shows."""
    if not notebook.is_file():
        return
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            content = "".join(output.get("data", {}).get("text/html", ""))
            for names, caption in _CARD.findall(content):
                yield names.split(), caption
