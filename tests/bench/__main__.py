"""`python -m tests.bench [--only dit tae ...] [--repetitions N]`.

`dit`, `bfloat16`, `tae` and `step-memory` need PyTorch.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from importlib import metadata
from typing import Any

import psutil

from moviegen import config
from moviegen.device import compiled
from moviegen.runs import files, machine
from tests.bench import compiling, dit, layouts, memory, precision, reading, recompute, rows, step_memory, tae

MEASUREMENTS = {
    "dit": dit.measure,
    "bfloat16": dit.measure_bfloat16,
    "tae": tae.measure,
    "step-memory": step_memory.measure,
    "compiling": compiling.measure,
    "reading": reading.measure,
    "euler": dit.measure_euler,
    "layouts": layouts.measure,
    "memory": memory.measure,
    "recompute": recompute.measure,
    "precision": precision.measure,
}
TITLES = {
    "dit": "transformer; ratio: ours / reference, below 1 where ours is faster; of the peak: how much of it is used",
    "bfloat16": "the same with products of bfloat16",
    "tae": "TAE; ratio: ours / PyTorch in its faster order of memory, below 1 where ours is faster",
    "step-memory": "the peak of a process that does a few training steps",
    "compiling": "seconds of compilation",
    "reading": "reading a training clip; ratio: to decoding alone",
    "euler": "sampler of tiny's transformer; ratio: to the network alone on twice the batch, which guidance takes",
    "layouts": "temporal convolution over 16 frames of 64 channels, 32x32: forward, and both passes; ratios to ours",
    "memory": "decoding with the TAE of params/tiny.yaml: the process's peak, and how much of it is the decoding's",
    "precision": "what bfloat16 on a card loses, in percent of the norm, by what is kept in float32 there",
    "recompute": "a training step of params/tiny.yaml, stage 3, batch 8: the process's peak, and the step's share",
}
BUSY_PERCENT = 5


def main() -> None:
    """Measures, prints, and writes `outputs/bench/bench.json`."""
    options = parse()
    report = {
        "commit": machine.git_commit(),
        "machine": machine.machine(),
        "versions": machine.versions() | {"torch": torch_version()},
        "operators": str(compiled.current()),
        "repetitions": options.repetitions,
        "busy_percent": {},
    }
    for name in options.only:
        report[name], report["busy_percent"][name] = measure(name, options.repetitions)
        print(f"\n{TITLES[name]}\n{rows.table(report[name])}\n", flush=True)
    report["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = config.project_root() / "outputs" / "bench" / "bench.json"
    files.write_json(path, report)
    print(f"written: {path.relative_to(config.project_root())}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Time and memory beside PyTorch.")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--repetitions", type=int, default=7, help="timed calls of each subject; medians are shown")
    return parser.parse_args()


def torch_version() -> str:
    """Of the environment of `make bench`; others have none."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "not installed"


def busy_seconds() -> float:
    """Core-seconds that this machine has spent on anything but these processes; children count once they ended."""
    times = psutil.cpu_times()
    return times.user + times.system - sum(os.times()[:4])


def measure(name: str, repetitions: int) -> tuple[list[dict[str, Any]], float]:
    """The rows, and the percent of the cores that others used meanwhile; warns if it is much."""
    others, started = busy_seconds(), time.perf_counter()
    found = MEASUREMENTS[name](repetitions)
    seconds = (time.perf_counter() - started) * machine.cores()
    percent = max(0.0, 100 * (busy_seconds() - others) / seconds)
    if percent > BUSY_PERCENT:
        print(f"warning: others used {percent:.0f} % of the cores meanwhile; times and ratios are off")
    return found, percent


if __name__ == "__main__":
    main()
