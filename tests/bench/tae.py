"""The Temporal Autoencoder beside its PyTorch twin: at the sizes of `params/tiny.yaml`, and four times as wide."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from moviegen import config
from tests.bench import rows
from tests.bench.workers import Worker, take_turns

ORDERS = {"contiguous": False, "channels last": True}  # of PyTorch's memory: the faster one is compared with


@dataclass(frozen=True)
class Case:
    """One piece of work: on (batch, 3, *size), with the ratio that is aimed at."""

    task: str
    batch: int
    size: tuple[int, int, int]
    at_most: float
    base_channels: int = 16

    def __str__(self) -> str:
        name = {"train": "TAE step", "encode": "TAE encode", "decode": "TAE decode"}[self.task]
        width = "" if self.base_channels == 16 else f", base {self.base_channels}"
        return f"{name}, {self.batch}x3x{'x'.join(map(str, self.size))}{width}"


CASES = (
    Case("train", 8, (16, 32, 32), 0.75),
    Case("train", 1, (16, 64, 64), 0.55),
    Case("encode", 8, (16, 32, 32), 0.80),
    Case("encode", 1, (16, 64, 64), 0.80),
    Case("encode", 1, (16, 128, 128), 0.80, base_channels=64),
    Case("decode", 8, (16, 32, 32), 0.80),
    Case("decode", 1, (16, 64, 64), 0.80),
    Case("decode", 1, (16, 128, 128), 0.80, base_channels=64),
)


def work(case: Case) -> dict[str, Any]:
    """What both processes are asked for."""
    model = config.load("tiny").tae.model.model_dump() | {"base_channels": case.base_channels}
    return {"task": case.task, "config": model, "batch": case.batch, "size": case.size}


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each case."""
    with (
        Worker("tests.bench.ours", is_ours=True) as ours,
        Worker("tests.bench.pytorch", is_ours=False) as pytorch,
        tqdm(total=len(CASES) * repetitions, desc="TAE", unit="round") as progress,
    ):
        return [compare(ours, pytorch, case, repetitions, progress) for case in CASES]


def compare(ours: Worker, pytorch: Worker, case: Case, repetitions: int, progress: tqdm) -> dict[str, Any]:
    """PyTorch is given the order of memory in which it was faster."""
    name, arguments = str(case), work(case)
    first = ours.prepare(name, **arguments)
    for order, channels_last in ORDERS.items():
        pytorch.prepare(f"{name} {order}", **arguments, channels_last=channels_last)
    subjects = [(ours, name), *((pytorch, f"{name} {order}") for order in ORDERS)]
    times, *references = take_turns(subjects, repetitions, progress)
    by_order = dict(zip(ORDERS, references, strict=True))
    fastest = min(by_order, key=lambda order: statistics.median(by_order[order]))
    compile_s = first - statistics.median(times) / 1e3
    row = rows.compared(name, f"PyTorch, {fastest}", times, by_order[fastest], case.at_most, compile_s)
    return row | {"calls_ms": {"ours": times, **by_order}}
