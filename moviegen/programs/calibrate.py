"""`python -m moviegen plan --calibrate`: how fast this machine computes what the networks are made of.

A probe is a short chain of one kind of layer, in the form that the networks use, compiled forward and backward; its
seconds are the least of several calls, without those that calling a graph takes. `calibration.json` in the run's folder
holds the rates (`plan.host`), for one process and, in a job that is started for it, for as many workers as a stage has:
they compute at the same time, each with its share of the cores, and exchange.

On a CPU's recipe `steps.json` beside it has what an update of each stage takes, and a step of the autoencoder's
training at three sizes, each by processes of its own (`one_step`): memory, and in a job what its graph exchanges.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import nn, ops
from tqdm import tqdm

from moviegen import runs
from moviegen.config import TEMPORAL_COMPRESSION, Params
from moviegen.device.collectives import Average, barrier
from moviegen.device.graph_text import Exchanged, dump_environment, exchanged
from moviegen.device.limits import cores
from moviegen.device.probes import Probe, normal, probes
from moviegen.device.world import World
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.plan.host import CALIBRATION_FILE, STEPS_FILE, Calibration, Point, Rates, parse_rates, rates_content
from moviegen.plan.programs import trained_phases
from moviegen.runs.files import read_json, write_json
from moviegen.runs.machine import machine
from moviegen.runs.ranks import joined, recorded
from moviegen.runs.run import check_asked

NAME = "calibration"
SECONDS = 0.1  # that a probe is called for, once compiled
LEAST_CALLS = 3
TAE_PHASE = "opl-on"


# ---- measuring


class _Chain(nn.Cell):
    def __init__(self, layers: list[nn.Cell]) -> None:
        super().__init__()
        self.layers = nn.CellList(layers)

    def construct(self, x: ms.Tensor, *beside: ms.Tensor) -> ms.Tensor:
        for layer in self.layers:
            x = layer(x, *beside)
        return x


class _Backward(nn.Cell):
    """A chain's output, and from a gradient of it those of its weights and of what it takes.

    The output is asked for, too: what is needed for no gradient, such as the last product, would not be computed.
    """

    def __init__(self, chain: _Chain) -> None:
        super().__init__()
        self.chain, self.weights = chain, ms.ParameterTuple(tuple(chain.trainable_params()))
        self.has_weights = bool(self.weights)

    def construct(self, dout: ms.Tensor, *inputs: ms.Tensor) -> tuple[Any, ...]:
        if self.has_weights:
            out, backward = ops.vjp(self.chain, *inputs, weights=self.weights)
        else:
            out, backward = ops.vjp(self.chain, *inputs)
        return out, backward(dout)


def measure(
    world: World,
    wanted: Iterable[Probe],
    seconds: float = SECONDS,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Rates:
    """The rates of probes, of which a `call` is the first; all ranks measure the same at the same time.

    Args:
        seconds: that each probe is called for.
        on_progress: told how many are done.
    """
    rates: dict[str, list[Point]] = {}
    call = 0.0
    for done, probe in enumerate(wanted, 1):
        layers = probe.layers()
        least = least_seconds(world, probe, layers, seconds)
        if probe.kind == "call":
            call = least
        else:
            least = max(least - call, 0.05 * least) / len(layers)  # not below what a clock can tell
        rates.setdefault(probe.kind, []).append(Point(probe.size, probe.work / least))
        on_progress(done)
    return rates


def least_seconds(world: World, probe: Probe, layers: list[nn.Cell], seconds: float) -> float:
    """Of one call of a compiled chain, of all within so many seconds."""
    graph: nn.Cell = _Chain(layers)
    inputs = [normal(shape) for shape in probe.shapes]
    if probe.gradients:
        graph, inputs = _Backward(graph), [normal(probe.output or probe.shapes[0]), *inputs]
    _finish(graph(*inputs))
    barrier(world)
    first = _timed(graph, inputs)
    calls = max(LEAST_CALLS, int(seconds / first))
    if world.size > 1:  # as many on each rank: a collective waits for all
        calls = math.ceil(float(Average(world.size)(ms.Tensor(calls, ms.float32))))
    return min(first, *(_timed(graph, inputs) for _ in range(calls)))


def _timed(graph: nn.Cell, inputs: Sequence[ms.Tensor]) -> float:
    """Seconds of one call, until its results are there."""
    started = time.perf_counter()
    _finish(graph(*inputs))
    return time.perf_counter() - started


def _finish(result: Any) -> None:
    """Waits for a graph, whose results, however nested, come together."""
    while isinstance(result, tuple):
        result = result[0]
    result.asnumpy()


# ---- the program


def measure_job(run: runs.Run, workers: int) -> Rates:
    """The rates of a job of so many workers, which is started for it on this host."""
    path = run.folder / f"rates-{workers}.json"
    form = run.operators
    job = Job(
        command=("python", "-m", "moviegen", *run.program.arguments, "--config", str(run.params_path)),
        log_dir=run.log_folder / f"workers-{workers}",  # beside those of the process that waits
        worker_num=workers,
        local_worker_num=workers,
        bind_core=run.params.launch.bind_core,
        run=run.name,
        operators=form.name if form else "",
    )
    run_job(job)
    return parse_rates(read_json(path, "run it again"), str(path))


def job_sizes(params: Params) -> list[int]:
    """How many workers the stages have that have several, all on one host."""
    launches = [params.launch_of(stage) for stage in params.stages]
    return sorted({one.worker_num for one in launches if 1 < one.worker_num == one.local_worker_num})


def as_worker(params: Params) -> None:
    """One rank's part of `measure_job`; rank 0 leaves the rates."""
    with joined(params) as world:
        rates = measure(world, probes(world))
        if world.is_main:
            run = runs.find(params, NAME)
            check_asked(run)  # the code may have changed since the process that waits was started
            write_json(run.folder / f"rates-{world.size}.json", rates_content(rates))


class StepCase(NamedTuple):
    """One step that is measured: how it is called, what `step` is told of it, and by how many workers."""

    name: str
    arguments: tuple[str, ...]
    workers: int = 1


def step_cases(params: Params) -> list[StepCase]:
    """An update of each stage that has all its workers here, and a step of the autoencoder at three sizes.

    Those are the recipe's, half the frames, and twice the width, of the run with the outlier penalty: it has all terms.
    """
    cases = []
    for stage in params.stages:
        launch = params.launch_of(stage)
        if launch.worker_num == launch.local_worker_num:
            cases.append(StepCase(f"stage{stage}", ("--stage", str(stage)), launch.worker_num))
    if TAE_PHASE not in trained_phases(params):
        return cases
    frames, (height, width) = params.tae.video.frames, params.tae.video.size
    changes = [(), ("--tae.video.size", f"[{height}, {2 * width}]")]
    if frames % (2 * TEMPORAL_COMPRESSION) == 0:
        changes.insert(1, ("--tae.video.frames", str(frames // 2)))
    return cases + [StepCase(f"tae-{TAE_PHASE}", ("--phase", TAE_PHASE, *change)) for change in changes]


def measure_step(run: runs.Run, number: int, case: StepCase) -> dict[str, Any]:
    """What `step` measures of a case, and, where it has several workers, what rank 0's one graph exchanges."""
    folder, form = run.folder / f"step-{number}", run.operators
    output, graphs = folder / "step.json", folder / "graphs"
    folder.mkdir(exist_ok=True)
    job = Job(
        command=("python", "-m", "moviegen", "step", "--config", str(run.params_path), *case.arguments,
                 "--output", str(output)),
        log_dir=run.log_folder / f"step-{number}",
        worker_num=case.workers,
        local_worker_num=case.workers,
        bind_core=run.params.launch.bind_core and case.workers > 1,
        operators=form.name if form else "",
        environment=dump_environment(graphs) if case.workers > 1 else {},
    )  # fmt: skip
    run_job(job)
    found = {"name": case.name} | read_json(output, "run it again")
    if case.workers > 1:
        *compiled, _ = exchanged(graphs / "rank_0")  # the last is the barrier with which the program ends
        # of several micro-batches each graph runs another number of times
        found["exchanged"] = _listed(compiled[0]) if len(compiled) == 1 else None
    shutil.rmtree(folder)
    return found


def measure_steps(run: runs.Run) -> list[dict[str, Any]]:
    """What is measured of all cases, as many at once as there are cores, a job by itself: most of it is compiling."""
    cases = list(enumerate(step_cases(run.params)))
    found = dict[int, dict[str, Any]]()
    with tqdm(total=len(cases), desc="steps", unit="step", disable=None, file=sys.stderr) as progress:
        for is_job in (True, False):
            some = [(number, case) for number, case in cases if (case.workers > 1) == is_job]
            with ThreadPoolExecutor(1 if is_job else max(1, int(cores()))) as pool:
                for (number, _), values in zip(some, pool.map(partial(_measured, run), some), strict=True):
                    found[number] = values
                    progress.update()
    return [found[number] for number, _ in cases]


def _measured(run: runs.Run, case: tuple[int, StepCase]) -> dict[str, Any]:
    return measure_step(run, *case)


def _listed(found: Exchanged) -> list[dict[str, Any]]:
    """In JSON's types."""
    return [
        {"collective": collective, "dtype": dtype, "calls": calls, "bytes": size}
        for (collective, dtype), (calls, size) in sorted(found.items())
    ]


def main(params: Params, options: argparse.Namespace) -> None:
    """`plan --calibrate`."""
    del options
    if "MS_ROLE" in os.environ:
        as_worker(params)
        return
    with recorded(params, NAME) as (run, world):
        wanted, metrics = probes(world), runs.MetricsWriter(run.metrics_path)
        metrics.drop_after(0)
        with tqdm(total=len(wanted), desc=NAME, unit="probe", disable=None, file=sys.stderr) as progress:

            def advance(done: int) -> None:
                progress.update()
                metrics.write(kind="probe", step=done, steps=len(wanted))

            rates = {1: measure(world, wanted, on_progress=advance)}
        for workers in job_sizes(params):
            print(f"{NAME}: {workers} workers at once", file=sys.stderr)
            rates[workers] = measure_job(run, workers)
        found = Calibration(machine(), str(run.operators), rates)
        write_json(run.folder / CALIBRATION_FILE, found.content())
        if params.launch.device == "CPU":
            write_json(run.folder / STEPS_FILE, {"steps": measure_steps(run)})
