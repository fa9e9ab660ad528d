"""`python -m moviegen schedule-error`: how far each schedule ends from a many-step solution, by number of steps.

All start from the same noise and follow the same velocity, that of stage 2's transformer at the size it was trained on
(stage 3's clips hold many times as many tokens). The solution they are compared with takes `reference_steps` equal
steps. The linear-quadratic schedule is also followed with guidance's difference reused from a share of the steps on.

Ranks take solutions in turn, or share each where tokens or weights are divided; where one ends is kept in `solutions/`,
and a run that was cut goes on with those that are missing. The run leaves `errors.csv` with, for each schedule and
number of steps, the error ||x - x_ref|| / ||x_ref|| of the final latent, its mean and range over the prompts, and the
seconds the whole batch took; and `summary.json`.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen import runs
from moviegen.config import Params, ScheduleError
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.splits import load_split
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.inference import load_stage, sampling_mesh
from moviegen.dit.weights import for_sampling
from moviegen.flow import schedule
from moviegen.flow.sampler import Prompt, Sampler, Velocity, euler, full_steps, numbered
from moviegen.runs.arrays import read_npz, save_npz
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.ranks import recorded, told_steps
from moviegen.text.encoders import encoders, origins

STAGE = 2
LINE_EVERY = 20  # steps between two lines of metrics
GATED = "linear-quadratic, gated"


@dataclass(frozen=True)
class Solution:
    """One way from the same noise: a schedule of so many steps.

    Args:
        name: of the schedule, or of what else is told apart.
        gate: share of the steps after which guidance reuses its last difference; 1: never.
    """

    name: str
    schedule: str
    steps: int
    gate: float = 1.0


def reference_of(settings: ScheduleError) -> Solution:
    """What the others are compared with."""
    return Solution("reference", "linear", settings.reference_steps)


def solutions_of(settings: ScheduleError, guidance: float) -> list[Solution]:
    """All that are compared: every schedule, and the paper's with guidance's difference reused, where there is one."""
    schedules = [Solution(name, name, steps) for name in schedule.SCHEDULES for steps in settings.steps]
    gated = [Solution(GATED, "linear-quadratic", steps, settings.guidance_gate) for steps in settings.steps]
    return schedules + (gated if guidance not in (0, 1) else [])


def relative_errors(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||x - reference|| / ||reference|| of each of a batch: (B, ...) twice -> (B,)."""
    difference, length = (array.reshape(len(x), -1) for array in (x - reference, reference))
    return np.linalg.norm(difference, axis=1) / np.linalg.norm(length, axis=1)


def solve(
    x: np.ndarray,
    velocity_of: Callable[[int | None], Velocity],
    solution: Solution,
    on_step: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, float]:
    """Where a solution ends, and its seconds.

    Args:
        velocity_of: the velocity whose guidance is whole for so many steps (None: all).
    """
    started = time.perf_counter()
    velocity = velocity_of(full_steps(solution.steps, solution.gate))
    end = euler(x, velocity, schedule.get(solution.schedule, solution.steps), on_step)
    return end, time.perf_counter() - started


def compare(found: Mapping[Solution, tuple[np.ndarray, float]], reference: np.ndarray) -> list[tuple]:
    """Rows (schedule, steps, mean error, least, most, seconds) of ends and their seconds."""
    rows = []
    for solution, (end, seconds) in found.items():
        errors = relative_errors(end, reference)
        rows.append((solution.name, solution.steps, *(float(f(errors)) for f in (np.mean, np.min, np.max)), seconds))
    return rows


def solution_file(run: runs.Run, solution: Solution) -> Path:
    """Where a run keeps where a solution ends, and how long it took."""
    return run.folder / "solutions" / f"{solution.name}-{solution.steps}.npz"


def solve_share(run: runs.Run, world: World, weights: Path, prompts: list[Prompt], todo: list[Solution]) -> None:
    """Solves this rank's share of what is missing, the reference first; tokens or weights divided, all of it."""
    params, seen = run.params, run.params.recipes[STAGE].dataset
    mesh = sampling_mesh(params, world, params.dit_config(STAGE))
    dit = load_stage(weights, params, STAGE, mesh)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed = functools.partial(read_embeddings, embeddings, settings=params.text)
    sampler = Sampler(dit, embed, params.sample.guidance, (seen.longest, *seen.size))
    is_shared = params.sample.exchanges(mesh.shards)
    share = todo if is_shared else todo[world.rank :: world.size]
    noise = sampler.noise(prompts)
    is_gated = any(solution.gate < 1 for solution in share)
    warm = sampler.velocity(prompts, 1 if is_gated else None)
    for _ in range(2 if is_gated else 1):  # compiles what all ask for: no solution's time holds it
        warm(noise, 0.0)
    total = sum(solution.steps for solution in share)
    with told_steps(run, world, total, "schedules", kind="evaluation", every=LINE_EVERY) as step:
        for solution in share:
            end, seconds = solve(noise, functools.partial(sampler.velocity, prompts), solution, step)
            if world.is_main or not is_shared:
                save_npz(solution_file(run, solution), end=end, seconds=seconds)


def measure(run: runs.Run, world: World) -> None:
    """Compares the schedules on the first captions of the validation set."""
    params, settings, seen = run.params, run.params.sample.schedule_error, run.params.recipes[STAGE].dataset
    weights = for_sampling(run.upstream(f"stage{STAGE}").folder)
    clips = load_split(run.upstream("data"), "mixkit_val")[: settings.prompts]
    prompts = numbered([clip.caption for clip in clips], params.seed)
    reference, solutions = reference_of(settings), solutions_of(settings, params.sample.guidance)
    todo = [one for one in (reference, *solutions) if not solution_file(run, one).exists()]
    barrier(world)  # nobody writes before all have listed the same
    if todo:
        solve_share(run, world, weights, prompts, todo)
    barrier(world)
    if not world.is_main:
        return
    found = {}
    for solution in (reference, *solutions):
        file = solution_file(run, solution)
        end, taken = read_npz(file, "end", "seconds", mend=f"remove {file}")
        found[solution] = end, float(taken)
    wanted, seconds = found.pop(reference)
    header = ("schedule", "steps", "error", "least", "most", "seconds")
    write_csv(run.folder / "errors.csv", header, compare(found, wanted))
    summary = {
        "prompts": len(prompts),
        "frames": seen.longest,
        "size": seen.size,
        "guidance": params.sample.guidance,
        "guidance_gate": settings.guidance_gate,
        "reference_steps": settings.reference_steps,
        "reference_seconds": seconds,
    }
    write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`schedule-error`."""
    with recorded(params, "schedule-error") as (run, world):
        measure(run, world)
