"""A run that the ranks of a job compute together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from tqdm import tqdm

from moviegen import device
from moviegen.config import ConfigError, Params
from moviegen.device.collectives import barrier, join_world
from moviegen.device.world import World
from moviegen.runs.metrics import MetricsWriter
from moviegen.runs.run import Run, check_asked, find, record


@contextmanager
def joined(params: Params) -> Iterator[World]:
    """Joins the job this process belongs to; no rank leaves before all are done.

    One that leaves early breaks the others' last collective.
    """
    device.start(params.seed, params.launch)
    world = join_world()
    yield world
    barrier(world)


@contextmanager
def recorded(params: Params, name: str, facts: Callable[[], dict[str, Any]] = dict) -> Iterator[tuple[Run, World]]:
    """`joined`, and keeps the run's manifest, on rank 0, while all ranks work.

    The run is complete before a rank leaves: the notebook on its host looks for it.

    Args:
        facts: what the manifest says besides; asked on rank 0 only.

    Raises:
        ConfigError: the job has other workers than the program can be computed by, or computes another run than it was
            started for; see `check_workers`, `check_asked`.
        RunBusy: another process works on the run.
    """
    with joined(params) as world:
        run = find(params, name)
        check_asked(run)  # by every rank: each reads the runs before it by what it computes itself
        check_workers(run, world)
        with record(run, **facts()) if world.is_main else nullcontext():
            yield run, world
            barrier(world)


@contextmanager
def told_steps(
    run: Run, world: World, total: int, what: str, kind: str, every: int = 1
) -> Iterator[Callable[[], None]]:
    """What a rank calls after each of its `total` steps; rank 0 shows its own, and writes every n-th and the last.

    Args:
        what: on the progress bar.
        kind: of the lines of metrics; those of an earlier attempt are dropped.
    """
    metrics, done = MetricsWriter(run.metrics_path) if world.is_main else None, itertools.count(1)
    if metrics:
        metrics.drop_after(0)
    with tqdm(total=total, desc=what, unit="step", disable=None if world.is_main else True) as bar:

        def step() -> None:
            bar.update()
            number = next(done)
            if metrics and (number % every == 0 or number == total):
                metrics.write(kind=kind, step=number, steps=total)

        yield step


def check_workers(run: Run, world: World) -> None:
    """Refuses other workers than the recipe asks for, where their number decides the result.

    Raises:
        ConfigError: the message says how to start it.
    """
    expected = {"one": 1, "any": world.size, "recipe": run.launch.worker_num}[run.program.workers]
    if world.size == expected:
        return
    run.write_params()  # the command names this file
    if run.program.workers == "one":
        raise ConfigError(
            f"{run.program.name} is computed by one worker and was started with {world.size}: run "
            f"`{run.command_line()}`"
        )
    if run.program.phase:
        raise ConfigError(
            f"{run.program.name} asks for {expected} workers and was started with {world.size}: run "
            f"`{run.command_line()}`, or have it ask for {world.size} with `--tae.{run.program.phase}.worker_num "
            f"{world.size}`"
        )
    change = f"--launch.worker_num {world.size} --launch.local_worker_num {world.size}"
    for stage, recipe in run.params.recipes.items():
        some = recipe.train.worker_num
        if some and (some > world.size or stage == run.program.stage):
            some = world.size
            change += f" --stages.{stage}.train.worker_num {some}"
        if (some or world.size) % recipe.train.sequence_parallel.shards:
            change += f" --stages.{stage}.train.sequence_parallel.shards 1"
    raise ConfigError(
        f"{run.program.name} asks for {expected} workers and was started with {world.size}: run "
        f"`{run.command_line()}`, or have the recipe ask for {world.size} with `{change}`"
    )
