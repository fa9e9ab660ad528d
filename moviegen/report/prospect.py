"""What a notebook that was opened alone needs, which of it is there, and how long the rest takes on this machine."""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence

from IPython.display import HTML

from moviegen import runs
from moviegen.config import TAE_PHASES, Bucket, ConfigError, Params
from moviegen.device.compiled import COMPILED
from moviegen.plan.duration import seen_shares
from moviegen.plan.host import Calibration, Task
from moviegen.plan.host_tasks import stage_tasks, tae_tasks
from moviegen.report import jupyter, markup, results, sections
from moviegen.report.planned import AUTOENCODERS
from moviegen.report.tables import bare_table
from moviegen.report.wording import duration, listed
from moviegen.runs import Run, registry
from moviegen.runs.machine import machine

UNKNOWN = "unknown"
OFFER = (
    '<p><code>section.launch("PROGRAM", with_upstream=True)</code> runs one of this notebook\'s programs, and '
    "first what it needs of others.</p>"
)


def needs(params: Params, program: str, needed: Sequence[str]) -> HTML:
    """That a program is not run yet, what it needs first, and how to have that run."""
    makers = list(dict.fromkeys(map(sections.maker, needed)))
    return markup.note(
        f"<b>{html.escape(program)}: not run yet.</b> It first needs {listed(needed)}: run "
        f"{listed(map(_link, makers))}, or have all of it run from this page's notebook, one after the other, with "
        f'<code>section.launch("{html.escape(program)}", with_upstream=True)</code>. '
        f"How long that takes here: {_total(params, [*needed, program])}."
    )


def table(params: Params, section: sections.Section) -> HTML:
    """Every program whose run a notebook makes or shows, and what those need: whether it is there, else how long."""
    own = section.programs(params)
    needed = [one for name in own for one in (*sections.missing(params, name), name)]
    rows = [_row(params, section, name) for name in dict.fromkeys((*needed, *own))]
    there = sum(row["time here"] == "-" for row in rows)
    is_whole = there == len(rows)
    return HTML(
        f"<details{'' if is_whole else ' open'}><summary>What this notebook needs: {there} of {len(rows)} runs are "
        f"there</summary>{bare_table(rows, raw=('run', 'made by'))}{'' if is_whole else OFFER}</details>"
    )


def seconds(params: Params, program: str) -> float | None:
    """How long a training takes here, by the rates that were measured of this machine; None: nobody knows.

    Neither compilation nor validation is in it.
    """
    found = _calibration(runs.find(params, "calibration"))
    if found is None:
        return None
    is_compiled = found.operators.startswith(COMPILED)
    try:
        if program in AUTOENCODERS:
            return _phase_seconds(params, AUTOENCODERS[program], found, is_compiled)
        if stage := registry.find(program).trained_stage:
            return _stage_seconds(params, stage, found, is_compiled)
    except ConfigError:  # of what is not counted, or was not measured
        pass
    return None


def _row(params: Params, section: sections.Section, program: str) -> dict[str, str]:
    run = runs.find(params, program)
    is_there = sections.is_complete(run)
    return {
        "program": program,
        "run": f"<code>{html.escape(run.name)}</code>" if is_there else "not run yet",
        "made by": "this notebook" if program in section.launches else _link(sections.maker(program)),
        "time here": "-" if is_there else _time_here(params, program),
    }


def _time_here(params: Params, program: str) -> str:
    """How long a program that was not run takes on this machine."""
    if not sections.can_run_here(params, program):
        return f"{markup.NOT_RUN}: it needs {params.launch.local_worker_num} cards"
    expected = seconds(params, program)
    return f"steps: about {duration(expected)}; compiling: {UNKNOWN}" if expected else UNKNOWN


def _link(section: sections.Section) -> str:
    """A section as one opens it: its notebook in JupyterLab, its page on the site."""
    address = section.notebook if jupyter.is_live() else section.page
    return f'<a href="{html.escape(address)}">{html.escape(section.notebook)}</a>'


def _total(params: Params, programs: Sequence[str]) -> str:
    known = {name: found for name in programs if (found := seconds(params, name)) is not None}
    unknown = [name for name in programs if name not in known]
    if not known:
        return UNKNOWN
    rest = f"; nobody knows of {listed(unknown)}" if unknown else ""
    return f"about {duration(sum(known.values()))} for the steps of {listed(known)}, and their compilation{rest}"


def _calibration(run: Run) -> Calibration | None:
    """What was measured of a machine like this one."""
    found = results.calibration(run) if sections.is_complete(run) else None
    return found if found and results.is_of(found, _machine()) else None


@functools.cache
def _machine() -> dict[str, object]:
    return machine()


def _stage_seconds(params: Params, stage: int, found: Calibration, is_compiled: bool) -> float:
    workers = params.launch_of(stage).worker_num
    update = sum(
        share * found.seconds(stage_tasks(params, stage, clip, is_compiled), workers)
        for clip, share in seen_shares(params, stage).items()
    )
    return params.recipes[stage].train.steps * update


def _phase_seconds(params: Params, phase: str, found: Calibration, is_compiled: bool) -> float:
    settings = getattr(params.tae, TAE_PHASES[phase])
    shares = {1: settings.image_ratio, settings.frames: 1 - settings.image_ratio}

    def tasks(frames: int) -> list[Task]:
        return tae_tasks(params, phase, Bucket(frames, *settings.size), is_compiled)

    return settings.steps * sum(share * found.seconds(tasks(frames)) for frames, share in shares.items() if share)
