"""Seconds of compilation: of a deep network over a shallow one, and of a whole report, from what its runs recorded."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen import config
from tests.bench import dit, rows
from tests.bench.workers import Worker

SHALLOW, DEEP = 8, 24
DEPTH_AT_MOST, REPORT_AT_MOST = 1.3, 100  # the latter in seconds
ROUNDS = 3  # a process for each: seconds in which little is left to chance


def measure(repetitions: int) -> list[dict[str, Any]]:
    """The step of 8 x 384 and of 24 x 384, in turns; and the tiny report's programs, where it was run."""
    seconds: dict[int, list[float]] = {SHALLOW: [], DEEP: []}
    for layers in tqdm([SHALLOW, DEEP] * ROUNDS, desc="compilation", unit="process"):
        seconds[layers].append(compile_seconds(layers))
    depth = rows.ratio(seconds[DEEP], seconds[SHALLOW])
    found = [
        {
            "task": f"compiling the DiT step, {DEEP} layers",
            "peer": f"{SHALLOW} layers",
            "ours_s": statistics.median(seconds[DEEP]),
            "reference_s": statistics.median(seconds[SHALLOW]),
            **rows.judged(depth, at_most=DEPTH_AT_MOST),
        }
    ]
    total = report_seconds(config.project_root() / "outputs" / "tiny" / "runs")
    return found if total is None else [*found, report_row(total)]


def report_row(total: float) -> dict[str, Any]:
    """Here the ratio is to the seconds that are aimed at."""
    return {
        "task": "compiling in a report at tiny",
        "peer": "aim",
        "ours_s": total,
        "reference_s": REPORT_AT_MOST,
        **rows.judged(total / REPORT_AT_MOST, at_most=1.0),
    }


def compile_seconds(layers: int) -> float:
    """The first step's seconds over those of a later one, in a fresh process."""
    with Worker("tests.bench.dit_ours", is_ours=True) as worker:
        first = worker.prepare("step", task="train", **dit.large(layers))
        return first - worker.seconds("step")


def report_seconds(runs: Path) -> float | None:
    """Of the newest run of each program: its training graphs', and what its first validation took over the second.

    None where nothing was run. What encodes, samples and evaluates does not record when it compiled.
    """
    newest: dict[str, Path] = {}
    for path in sorted(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime):
        newest[path.parent.name.rpartition("-")[0]] = path
    return sum(map(run_seconds, newest.values())) if newest else None


def run_seconds(path: Path) -> float:
    """Of one run's `metrics.jsonl`."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    graphs = sum(line["seconds"] for line in lines if line["kind"] == "compile")
    validations = [line["seconds"] for line in lines if line["kind"] == "validation"]
    return graphs + (max(0.0, validations[0] - validations[1]) if len(validations) > 1 else 0.0)
