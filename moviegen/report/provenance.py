"""Where every number comes from: which run made it, on what machine, and which figure shows it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from IPython.display import HTML

from moviegen.config import Params, project_root
from moviegen.parallel.launch import Job, host_commands
from moviegen.report import markup, sections
from moviegen.report.results import duration
from moviegen.runs import Run

_CARD = re.compile(r'<figure class="card" data-runs="([^"]*)">.*?<span class="title">(.*?)</span>', re.DOTALL)


def line(run: Run) -> HTML:
    """One line about a finished run."""
    manifest = run.manifest
    return HTML(f'<p class="run-line">{markup.run_link(run.name)} complete: {_cost(manifest)}.</p>')


def would_run(run: Run, job: Job) -> HTML:
    """What this machine cannot run: the command for each host, and the parameters that decide the result."""
    parameters = yaml.safe_dump(run.program.parameters(run.params), sort_keys=False)
    return HTML(
        f'<div class="note"><p><b>{html.escape(run.program.name)}: {markup.NOT_RUN}.</b> This recipe is written for '
        f"{run.params.launch.device}, and this machine has no such device. {_where(job)}:</p>"
        f"{_commands(job, range(job.host_num))}"
        f"<details><summary>Its parameters</summary><pre>{html.escape(parameters)}</pre></details></div>"
    )


def other_hosts(job: Job) -> HTML:
    """What is to be typed on the hosts that this one waits for."""
    others = [rank for rank in range(job.host_num) if rank != job.node_rank]
    return HTML(
        f'<div class="note"><p>This is host {job.node_rank} of {job.host_num}; it waits {job.cluster_time_out} s for '
        f"the others. On each of them, which share this folder, type:</p>{_commands(job, others)}</div>"
    )


def _where(job: Job) -> str:
    if job.host_num == 1:
        return "On one that has, this runs it"
    own = " (with its address in launch.master_addr)" if job.master_addr == Job.master_addr else ""
    return f"On {job.host_num} hosts that have and that share this folder, these run it, the first on host 0{own}"


def _commands(job: Job, ranks: Sequence[int]) -> str:
    """The commands to type, each under its host where there are several; paths are from the checkout."""
    commands = host_commands(job)
    headed = [f"# host {rank}\n{commands[rank]}" if job.host_num > 1 else commands[rank] for rank in ranks]
    typed = "\n\n".join(headed).replace(f"{project_root()}/", "")
    return f"<pre>{html.escape(typed)}</pre>"


def table_of_runs(found: Sequence[Run]) -> HTML:
    """Every run with its state, cost and code."""
    return HTML(markup.bare_table([_row(run) for run in found], raw=("run",)))


def details(found: Sequence[Run | None]) -> HTML:
    """Each finished run: the command that repeats it, its parameters, machine and versions; captions link here."""
    return HTML("".join(_details(run) for run in found if run) or str(markup.missing("Runs").data))


def figures_and_runs(params: Params) -> HTML:
    """Which run fed which figure or table, read off the executed notebooks."""
    rows = []
    for section in sections.SECTIONS:
        for names, caption in _cards(section.executed(params)):
            links = ", ".join(markup.run_link(name) for name in names) or "computed, or published elsewhere"
            page = f'<a href="{section.page}">{html.escape(section.title)}</a>'
            rows.append({"page": page, "figure or table": html.unescape(caption), "runs": links})
    return markup.table(rows, "Figures and tables, and the runs that fed them", raw=("page", "runs"))


def _cards(notebook: Path) -> Iterable[tuple[list[str], str]]:
    if not notebook.is_file():
        return
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", ()):
            content = "".join(output.get("data", {}).get("text/html", ""))
            for names, caption in _CARD.findall(content):
                yield names.split(), caption


def _row(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "program": run.program.name,
        "run": markup.run_link(run.name) if run.complete else "-",
        "state": manifest.get("status", markup.NOT_RUN),
        "finished (UTC)": _minute(manifest.get("finished", "-")),
        "cost": _cost(manifest) if manifest else "-",
        "commit": _short(manifest.get("commit", "-")),
    }


def _details(run: Run) -> str:
    manifest = run.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
    upstream = ", ".join(map(markup.run_link, manifest.get("upstream", {}).values())) or "nothing"
    facts = {
        "command": f"<code>{html.escape(manifest.get('command', '').replace(f'{project_root()}/', ''))}</code>",
        "built on": upstream,
        "finished": f"{manifest.get('finished', '-')}, after {_cost(manifest)}",
        "commit": html.escape(manifest.get("commit", "-")),
        "machine": html.escape(_machine(manifest.get("machine"))),
        "versions": html.escape(versions),
        "fingerprint": run.fingerprint,
    }
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    parameters = html.escape(yaml.safe_dump(manifest.get("parameters", {}), sort_keys=False))
    return (
        f'<details class="run" id="{run.name}"><summary><code>{run.name}</code></summary><dl>{items}</dl>'
        f"<pre>{parameters}</pre></details>"
    )


def _cost(manifest: dict[str, Any]) -> str:
    memory = manifest.get("peak_memory_bytes")
    peak = f", {memory / 2**30:.1f} GiB at most" if memory else ""
    return duration(manifest.get("seconds")) + peak


def _machine(machine: dict[str, Any] | None) -> str:
    if not machine:
        return "-"
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}"


def _minute(moment: str) -> str:
    """`2026-11-23T11:52:55Z` to the minute."""
    return moment[:16].replace("T", " ")


def _short(commit: str) -> str:
    sha, plus, changes = commit.partition("+")
    return sha[:10] + plus + changes
