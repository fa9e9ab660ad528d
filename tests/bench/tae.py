"""The Temporal Autoencoder beside its PyTorch twin, at the sizes of `params/tiny.yaml`."""

from __future__ import annotations

import statistics
from typing import Any

from tqdm import tqdm

from moviegen import config
from tests.bench.workers import Worker, ratio, take_turns

CLIPS = ((8, (16, 32, 32)), (1, (16, 64, 64)))  # batch, (T, H, W)
TASKS = ("encode", "decode", "train")
ORDERS = {"contiguous": False, "channels last": True}


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each task and clip."""
    rows = []
    model = config.load("tiny").tae.model.model_dump()
    with (
        Worker("tests.bench.ours", is_ours=True) as ours,
        Worker("tests.bench.pytorch", is_ours=False) as pytorch,
        tqdm(total=len(CLIPS) * len(TASKS) * repetitions, desc="TAE", unit="round") as progress,
    ):
        for batch, size in CLIPS:
            for task in TASKS:
                name = f"{task} {batch}x3x{'x'.join(map(str, size))}"
                work = {"task": task, "config": model, "batch": batch, "size": size}
                first = ours.prepare(name, **work)
                for order, channels_last in ORDERS.items():
                    pytorch.prepare(f"{name} {order}", **work, channels_last=channels_last)
                subjects = [(ours, name), *((pytorch, f"{name} {order}") for order in ORDERS)]
                times, *references = take_turns(subjects, repetitions, progress)
                rows.append(row(name, first, times, dict(zip(ORDERS, references, strict=True))))
    return rows


def row(name: str, first_seconds: float, times: list[float], references: dict[str, list[float]]) -> dict[str, Any]:
    """PyTorch is given the order of memory in which it was faster."""
    medians = {order: statistics.median(reference) for order, reference in references.items()}
    fastest = min(medians, key=medians.__getitem__)
    return {
        "task": name,
        "ours_ms": statistics.median(times),
        **{f"pytorch_{order.replace(' ', '_')}_ms": median for order, median in medians.items()},
        "ratio": ratio(times, references[fastest]),
        "ratio_of_fastest_calls": min(times) / min(map(min, references.values())),
        "compile_s": first_seconds - statistics.median(times) / 1e3,
        "calls_ms": {"ours": times, **references},
    }
