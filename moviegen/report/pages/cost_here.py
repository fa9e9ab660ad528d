"""Of the cost page: this machine's own steps, counted and foretold, beside what was measured of them here."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from IPython.display import HTML

from moviegen.config import TAE_PHASES, Bucket, ConfigError, Params
from moviegen.device.compiled import COMPILED
from moviegen.plan.host import STEPS_FILE, Calibration, Task
from moviegen.plan.host_tasks import stage_tasks, tae_tasks
from moviegen.plan.programs import trained_phases
from moviegen.plan.traffic import by_collective, on_cpu, stage_traffic
from moviegen.report import provenance, results
from moviegen.report.planned import AUTOENCODERS
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import shown
from moviegen.runs import Run

ELSEWHERE = "measured on another machine"
NOT_COUNTED = "not counted"
NOT_STATED = "this system does not say"
FEW = 20  # steps: of fewer nobody can tell the slowest in twenty
MIB = 2**20


class _Step(NamedTuple):
    """Steps of one run that see one medium."""

    name: str
    clip: Bucket
    run: Run | None
    workers: int


def this_machine(params: Params, calibration: Run | None, stages: StageRuns, tae: Mapping[str, Run | None]) -> HTML:
    """Seconds of a step of each training stage and TAE phase: foretold from the calibration's rates, and measured.

    Args:
        calibration: the finished run of that program.
        stages, tae: the finished runs that are foretold, see `results.StageRuns`.
    """
    found = results.calibration(calibration)
    rows = [_row(params, step, found) for step in (*_stages(params, stages), *_phases(params, tae))]
    caption = "Seconds a step: foretold from rates that were measured here, and measured in training"
    return table(rows, caption, [calibration, *stages.values(), *tae.values()])


def steps_memory(params: Params, calibration: Run | None) -> HTML:
    """Memory of single steps: counted, and what their processes grew by.

    Args:
        calibration: the finished run of that program.
    """
    is_compiled = _is_compiled(calibration)  # of MindSpore's own operators memory is counted as of a card
    rows = [
        {
            "step": _readable(step["name"]),
            "works on": step["clip"],
            "workers": step["workers"],
            "counted": f"{step['counted_bytes'] / MIB:,.1f}",
            "measured": f"{step['measured_bytes'] / MIB:,.1f}" if step["measured_bytes"] else NOT_STATED,
            "error": _error(step["counted_bytes"], step["measured_bytes"]) if is_compiled else NOT_COUNTED,
        }
        for step in _steps(calibration)
    ]
    columns = ("step", "works on", "workers", "counted", "measured", "error")
    caption = "MiB of a step beyond what is held from step to step: counted, and by how much a process grew here"
    absent = dict.fromkeys(columns, "-") | {"measured": provenance.why_absent(params, "calibration", calibration)}
    return table(rows or [absent], caption, [calibration])


def steps_exchanged(params: Params, calibration: Run | None) -> HTML:
    """Calls and bytes of each collective in an update of the stages with several workers: counted, and in the graph."""
    rows = []
    is_compiled = _is_compiled(calibration)
    for step in _steps(calibration):
        if step.get("exchanged") is None:
            continue
        planned = stage_traffic(params, int(step["name"].removeprefix("stage")), _largest(step), is_compiled)
        counted = by_collective(on_cpu(row, step["workers"]) for row in planned)
        for one in step["exchanged"]:
            calls, size = counted.get((one["collective"], one["dtype"]), (0, 0))
            rows.append(
                {
                    "step": _readable(step["name"]),
                    "collective": f"{one['collective']}, {one['dtype']}",
                    "calls, counted": f"{calls:,}",
                    "calls, in the graph": f"{one['calls']:,}",
                    "bytes, counted": f"{size:,}",
                    "bytes, in the graph": f"{one['bytes']:,}",
                    "": "equal" if (calls, size) == (one["calls"], one["bytes"]) else "not equal",
                }
            )
    caption = "What a rank exchanges in an update: counted, and in MindSpore's compiled graph of it"
    absent = {"step": "-", "bytes, in the graph": provenance.why_absent(params, "calibration", calibration)}
    return table(rows or [absent], caption, [calibration])


def _steps(calibration: Run | None) -> list[dict[str, Any]]:
    return (results.read_json(calibration, STEPS_FILE) or {}).get("steps", [])


def _is_compiled(calibration: Run | None) -> bool:
    found = results.calibration(calibration)
    return found is not None and found.operators.startswith(COMPILED)


def _largest(step: Mapping[str, Any]) -> Bucket:
    """The clip of `2 x 16x64x64`."""
    return Bucket(*map(int, step["clip"].partition(" x ")[2].split("x")))


def _readable(name: str) -> str:
    return name.replace("stage", "stage ")


def _error(counted: float, measured: float | None) -> str:
    return f"{100 * (counted / measured - 1):+.1f} %" if measured else "-"


def _stages(params: Params, runs: StageRuns) -> Iterator[_Step]:
    for stage, run in runs.items():
        recipe, workers = params.recipes[stage], params.launch_of(stage).worker_num
        lengths = [
            *([1] if recipe.sees_images else []),
            *([recipe.dataset.longest] if recipe.dataset.longest > 1 else []),
        ]
        for frames in lengths:
            yield _Step(f"stage {stage}", Bucket(frames, *recipe.dataset.size), run, workers)


def _phases(params: Params, runs: Mapping[str, Run | None]) -> Iterator[_Step]:
    """Of the phases that are trained: weights that are given instead leave no step."""
    for program, run in runs.items():
        if AUTOENCODERS[program] not in trained_phases(params):
            continue
        stage = getattr(params.tae, TAE_PHASES[AUTOENCODERS[program]])
        images = [1] if stage.image_ratio or stage.frames == 1 else []
        for frames in sorted({*images, stage.frames}):
            yield _Step(program, Bucket(frames, *stage.size), run, 1)


def _row(params: Params, step: _Step, found: Calibration | None) -> dict[str, Any]:
    seconds_here = results.step_seconds(step.run, "image" if step.clip.frames == 1 else "video")
    measured = statistics.median(seconds_here) if seconds_here else None
    foretold, error = provenance.why_absent(params, "calibration"), "-"
    if found is not None:
        try:
            seconds = found.seconds(_tasks(params, step, found.operators.startswith(COMPILED)), step.workers)
        except ConfigError:
            foretold = NOT_COUNTED
        else:
            foretold = shown(seconds)
            if measured:
                error = _error_of(seconds, seconds_here) if _is_same(step.run, found) else ELSEWHERE
    program = step.name.replace(" ", "")
    return {
        "run": step.name,
        "frames and pixels": str(step.clip),
        "workers": step.workers,
        "foretold": foretold,
        "measured": shown(measured) if measured else provenance.why_absent(params, program, step.run),
        "steps": len(seconds_here),
        "nine steps in ten": _spread(seconds_here),
        "error": error,
    }


def _error_of(foretold: float, measured: Sequence[float]) -> str:
    """How far off what was foretold is, where the steps that were measured can tell."""
    error = f"{100 * (foretold / statistics.median(measured) - 1):+.0f} %"
    is_told = results.is_told_apart(foretold, measured)
    return error if is_told else f"{error}, not told apart (n = {len(measured)})"


def _spread(seconds: Sequence[float]) -> str:
    """Between which seconds nine steps in ten lie, where there are enough of them."""
    return "{} to {}".format(*map(shown, np.percentile(seconds, (5, 95)))) if len(seconds) >= FEW else "-"


def _tasks(params: Params, step: _Step, is_compiled: bool) -> list[Task]:
    if step.name in AUTOENCODERS:
        return tae_tasks(params, AUTOENCODERS[step.name], step.clip, is_compiled)
    return stage_tasks(params, int(step.name.removeprefix("stage ")), step.clip, is_compiled)


def _is_same(run: Run | None, found: Calibration) -> bool:
    """Whether a run was computed on a machine like the calibration's; its manifest may not say."""
    return results.is_of(found, run.manifest.get("machine", {}) if run else {})
