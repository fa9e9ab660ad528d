"""Where a page's numbers come from: which run made them, at what cost, or why none did."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from IPython.display import HTML

from moviegen.config import ConfigError, Params
from moviegen.device import accelerators
from moviegen.launch.job import Job, host_commands
from moviegen.report import markup, sections
from moviegen.report.tables import bare_table
from moviegen.report.templates import filled
from moviegen.report.wording import duration, in_checkout
from moviegen.runs import Run


def line(run: Run) -> HTML:
    """One line about a finished run."""
    return HTML(f'<p class="run-line">{markup.run_link(run.name)} complete: {cost(run.manifest)}.</p>')


def table_of_runs(runs: Sequence[Run]) -> HTML:
    """Every run with its state, cost and code."""
    return HTML(bare_table([_row(run) for run in runs], raw=("run",)))


def would_run(run: Run, job: Job) -> HTML:
    """What this machine cannot run: the command for each host, and the parameters that decide the result."""
    return HTML(
        filled(
            "would_run",
            program=run.program.name,
            not_run=markup.NOT_RUN,
            launch=run.launch,
            cards=accelerators(),
            where=_where(job),
            commands=_typed(job, range(job.host_num)),
            parameters=yaml.safe_dump(run.program.parameters(run.params), sort_keys=False),
        )
    )


def other_hosts(job: Job) -> HTML:
    """What is to be typed on the hosts that this one waits for."""
    others = [rank for rank in range(job.host_num) if rank != job.node_rank]
    typed = html.escape(_typed(job, others))
    return HTML(
        f'<div class="note"><p>This is host {job.node_rank} of {job.host_num}; it waits {job.cluster_time_out} s for '
        f"the others. On each of them, which share this folder, type:</p><pre>{typed}</pre></div>"
    )


def cost(manifest: Mapping[str, Any]) -> str:
    """The time and memory a run took."""
    memory = manifest.get("peak_memory_bytes")
    peak = f", {memory / 2**30:.1f} GiB at most" if memory else ""
    return duration(manifest.get("seconds")) + peak


def why_absent(params: Params, program: str, run: Run | None = None) -> str:
    """Why a number is not there: its run says none, this machine lacks cards, or nobody ran its notebook yet."""
    if run:
        return "not recorded"
    if not sections.can_run_here(params, program):
        return markup.NOT_RUN
    section = sections.maker(program)
    if path := section.replacement(params, program):
        return f"{path} is used instead"
    return f"not run yet: open {section.notebook}{f', stage {section.stage}' if section.stage else ''}"


def _where(job: Job) -> str:
    if job.host_num == 1:
        return "On one that has, this runs it"
    address = " (with its address in launch.master_addr)" if job.master_addr == Job.master_addr else ""
    return f"On {job.host_num} hosts that have and that share this folder, these run it, the first on host 0{address}"


def _typed(job: Job, ranks: Sequence[int]) -> str:
    """The commands to type, each under its host where there are several; paths are from the checkout."""
    commands = host_commands(job)
    headed = [f"# host {rank}\n{commands[rank]}" if job.host_num > 1 else commands[rank] for rank in ranks]
    return in_checkout("\n\n".join(headed))


def _row(run: Run) -> dict[str, Any]:
    try:
        manifest = run.manifest
    except ConfigError:
        manifest = {"status": "damaged"}
    return {
        "program": run.program.name,
        "run": markup.run_link(run.name) if manifest.get("status") == "complete" else "-",
        "state": manifest.get("status") or why_absent(run.params, run.program.name),
        "finished (UTC)": _minute(manifest.get("finished", "-")),
        "cost": cost(manifest) if manifest else "-",
        "commit": _short(manifest.get("commit", "-")),
    }


def _minute(moment: str) -> str:
    """`2026-11-23T11:52:55Z` to the minute."""
    return moment[:16].replace("T", " ")


def _short(commit: str) -> str:
    sha, plus, changes = commit.partition("+")
    return sha[:10] + plus + changes
