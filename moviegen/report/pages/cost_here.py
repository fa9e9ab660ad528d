"""Of the cost page: this machine's own steps, foretold from what `plan --calibrate` measured, beside what they took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from IPython.display import HTML

from moviegen.config import Bucket, ConfigError, Params
from moviegen.device.compiled import COMPILED
from moviegen.plan.host import CALIBRATION_FILE, Calibration, Task, parse_calibration
from moviegen.plan.host_tasks import stage_tasks, tae_tasks
from moviegen.plan.tae_memory import PHASES
from moviegen.report import markup, results
from moviegen.report.planned import AUTOENCODERS
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import shown
from moviegen.runs import Run

ELSEWHERE = "measured on another machine"
NOT_COUNTED = "not counted"


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
    found = _read(calibration)
    rows = [_row(params, step, found) for step in (*_stages(params, stages), *_phases(params, tae))]
    caption = "Seconds a step: foretold from rates that were measured here, and measured in training"
    return table(rows, caption, [calibration, *stages.values(), *tae.values()])


def _read(run: Run | None) -> Calibration | None:
    content = results.read_json(run, CALIBRATION_FILE)
    return parse_calibration(content, str(run.folder / CALIBRATION_FILE)) if run and content is not None else None


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
    given = {
        "tae-image": params.tae.vae_checkpoint or params.tae.tae_checkpoint,
        "tae-mixkit": params.tae.tae_checkpoint,
    }
    for program, run in runs.items():
        stage = getattr(params.tae, PHASES[AUTOENCODERS[program]])
        if given.get(program, params.tae.tae_checkpoint):
            continue
        images = [1] if stage.image_ratio or stage.frames == 1 else []
        for frames in sorted({*images, stage.frames}):
            yield _Step(program, Bucket(frames, *stage.size), run, 1)


def _row(params: Params, step: _Step, found: Calibration | None) -> dict[str, Any]:
    measured = results.seconds_per_step(step.run, "image" if step.clip.frames == 1 else "video")
    foretold, error = markup.NOT_RUN, "-"
    if found is not None:
        try:
            seconds = found.seconds(_tasks(params, step, found.operators.startswith(COMPILED)), step.workers)
        except ConfigError:
            foretold = NOT_COUNTED
        else:
            foretold = shown(seconds)
            if measured:
                error = f"{100 * (seconds / measured - 1):+.0f} %" if _is_same(step.run, found) else ELSEWHERE
    return {
        "run": step.name,
        "frames and pixels": str(step.clip),
        "workers": step.workers,
        "foretold": foretold,
        "measured": shown(measured) if measured else markup.NOT_RUN,
        "error": error,
    }


def _tasks(params: Params, step: _Step, is_compiled: bool) -> list[Task]:
    if step.name in AUTOENCODERS:
        return tae_tasks(params, AUTOENCODERS[step.name], step.clip, is_compiled)
    return stage_tasks(params, int(step.name.removeprefix("stage ")), step.clip, is_compiled)


def _is_same(run: Run | None, found: Calibration) -> bool:
    """Whether a run was computed on a machine like the calibration's; its manifest may not say."""
    machine = run.manifest.get("machine", {}) if run else {}
    return all(machine.get(name) == found.machine.get(name) for name in ("cpu", "cores"))
