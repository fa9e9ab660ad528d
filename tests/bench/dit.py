"""The transformer beside its PyTorch twin at stage 2's size of `params/tiny.yaml`, and what Euler's method adds."""

from __future__ import annotations

import statistics
from typing import Any

from tqdm import tqdm

from moviegen import config
from moviegen.config import latent_size
from tests.bench.workers import Worker, ratio, take_turns

EULER_PERCENT = 5  # what the sampler may add


def work() -> dict[str, Any]:
    """Stage 2's transformer of `params/tiny.yaml` and its inputs."""
    params = config.load("tiny")
    encoders = params.text.encoders.values()
    return {
        "config": params.dit_config(2).model_dump(),
        "latent": [4, 16, *latent_size(16, *params.recipes[2].dataset.size)],
        "lengths": [one.max_tokens for one in encoders],
    }


def measure(repetitions: int) -> list[dict[str, Any]]:
    """Forward and training step against PyTorch."""
    arguments, tasks = work(), ("forward", "train")
    shape = "x".join(map(str, arguments["latent"]))
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        Worker("tests.bench.dit_pytorch", is_ours=False) as pytorch,
        tqdm(total=len(tasks) * repetitions, desc="transformer", unit="round") as progress,
    ):
        rows = []
        for task in tasks:
            first = ours.prepare(task, task=task, **arguments)
            pytorch.prepare(task, task=task, **arguments)
            times, reference = take_turns([(ours, task), (pytorch, task)], repetitions, progress)
            rows.append(row(f"{task} {shape}, against PyTorch", first, times, reference))
    return rows


def measure_euler(repetitions: int) -> list[dict[str, Any]]:
    """The sampler against bare calls of the network; says so where it costs more than it should."""
    arguments = work()
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        tqdm(total=repetitions, desc="Euler", unit="round") as progress,
    ):
        first = ours.prepare("euler", task="euler", **arguments)
        ours.prepare("bare", task="bare", **arguments)
        times, reference = take_turns([(ours, "euler"), (ours, "bare")], repetitions, progress)
    found = row("10 guided Euler steps, against 10 bare calls", first, times, reference)
    overhead = 100 * (found["ratio_of_fastest_calls"] - 1)
    if overhead > EULER_PERCENT:
        print(f"warning: Euler's method adds {overhead:.1f} % to the network's time, more than {EULER_PERCENT} %")
    return [found]


def row(name: str, first_seconds: float, times: list[float], reference: list[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "task": name,
        "ours_ms": statistics.median(times),
        "reference_ms": statistics.median(reference),
        "ratio": ratio(times, reference),
        "ratio_of_fastest_calls": min(times) / min(reference),
        "compile_s": first_seconds - statistics.median(times) / 1e3,
        "calls_ms": {"ours": times, "reference": reference},
    }
