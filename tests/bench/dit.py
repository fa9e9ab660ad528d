"""The transformer beside its PyTorch twin at stage 2's size of `params/tiny.yaml`, and what Euler's method adds."""

from __future__ import annotations

import statistics
from typing import Any

from tqdm import tqdm

from moviegen import config
from moviegen.config import latent_size
from tests.bench.workers import Worker, ratio, take_turns


def measure(repetitions: int) -> list[dict[str, Any]]:
    """Forward and training step against PyTorch; the sampler against bare guided calls of the network."""
    params = config.load("tiny")
    dataset, sizes = params.recipes[2].dataset, params.text
    latent = [4, 16, *latent_size(16, *dataset.size)]
    work = {
        "config": params.dit_config(2).model_dump(),
        "latent": latent,
        "lengths": [one.max_tokens for one in (sizes.ul2, sizes.metaclip, sizes.byt5)],
    }
    shape = "x".join(map(str, latent))
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        Worker("tests.bench.dit_pytorch", is_ours=False) as pytorch,
        tqdm(total=3 * repetitions, desc="transformer", unit="round") as progress,
    ):
        rows = []
        for task in ("forward", "train"):
            first = ours.prepare(task, task=task, **work)
            pytorch.prepare(task, task=task, **work)
            times, reference = take_turns([(ours, task), (pytorch, task)], repetitions, progress)
            rows.append(row(f"{task} {shape}, against PyTorch", first, times, reference))
        first = ours.prepare("network", task="network", **work)
        ours.prepare("euler", task="euler", **work)
        reference, times = take_turns([(ours, "network"), (ours, "euler")], repetitions, progress)
        rows.append(row("10 Euler steps, against 10 bare calls", first, times, reference))
    return rows


def row(name: str, first_seconds: float, times: list[float], reference: list[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "task": name,
        "ours_ms": statistics.median(times),
        "reference_ms": statistics.median(reference),
        "ratio": ratio(times, reference),
        "compile_s": first_seconds - statistics.median(times) / 1e3,
        "calls_ms": {"ours": times, "reference": reference},
    }
