"""`python -m moviegen plan --calibrate`: how fast this machine computes what the networks are made of.

A probe is a short chain of one kind of layer, in the form that the networks use, compiled forward and backward; its
seconds are the least of several calls, without those that calling a graph takes. `calibration.json` in the run's folder
holds the rates (`plan.host`), for one process and, in a job that is started for it, for as many workers as a stage has:
they compute at the same time, each with its share of the cores, and exchange.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mindspore as ms
from mindspore import nn, ops
from tqdm import tqdm

from moviegen import runs
from moviegen.config import Params
from moviegen.device.collectives import Average, barrier
from moviegen.device.probes import Probe, normal, probes
from moviegen.device.world import World
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.plan.host import CALIBRATION_FILE, Calibration, Point, Rates, parse_rates, rates_content
from moviegen.runs.files import read_json, write_json
from moviegen.runs.machine import machine
from moviegen.runs.ranks import joined, recorded
from moviegen.runs.run import check_asked

NAME = "calibration"
SECONDS = 0.1  # that a probe is called for, once compiled
LEAST_CALLS = 3


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
