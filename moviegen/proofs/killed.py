"""A training stage that is killed thirty times, beside the same stage that never is: every loss, every weight.

Called as a program it trains both: `python -m moviegen.proofs.killed KILLS`, in the folder that MOVIEGEN_OUTPUTS names.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from moviegen import runs
from moviegen.config import Params, load
from moviegen.launch.run import run_job
from moviegen.launch.watch import WorkerError
from moviegen.proofs.proof import Proof
from moviegen.proofs.records import KEPT
from moviegen.runs import Run, registry, repeated
from moviegen.runs.files import checksum, write_json
from moviegen.runs.metrics import read_metrics

KILLS, SEED = 30, 30
STAGE = "stage1"
STEPS = 120
KINDS = ("train", "validation")  # of the lines that hold losses
# smoke's first stage, longer, on few clips, through the autoencoder that came with the repository, in one process: many
# starts are waited for, and tests/parallel kills jobs of several
SMALL: dict[str, Any] = {
    "data.max_clips": 8,
    "tae.tae_checkpoint": "params/weights/tae.safetensors",
    "tae.model.base_channels": 16,
    "tae.model.channel_multipliers": [1, 2, 4, 8],
    "stages.1.train.steps": STEPS,
    "stages.1.train.save.interval": 4,
    "stages.1.valid.frequency": 10,
    "launch.worker_num": 1,
    "launch.local_worker_num": 1,
    "stages.3.train.sequence_parallel.shards": 1,
}
DELAY = 0.3  # seconds, at most, between a step that is waited for and the kill
STARTING = (1.0, 6.0)  # seconds after the start of every other job: it loads, joins, compiles or has just begun


@dataclass(frozen=True)
class Moment:
    """When a job is killed: so many seconds after its metrics tell of a step, or after its start."""

    step: int | None
    delay: float

    def is_reached(self, line: dict[str, Any]) -> bool:
        """Whether a line of metrics is of the step that is waited for, or of a later one."""
        return self.step is not None and line["kind"] == "train" and line["step"] >= self.step


def moments(kills: int, steps: int) -> list[Moment]:
    """Drawn, in the order of their steps."""
    draw = random.Random(SEED)
    at = sorted(draw.sample(range(1, steps - steps // 10), (kills + 1) // 2))  # a kill comes late: the end is left out
    return [
        Moment(None, draw.uniform(*STARTING)) if number % 2 else Moment(at[number // 2], draw.uniform(0, DELAY))
        for number in range(kills)
    ]


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """Whether the killed job's losses, and the weights it left, are those of the one that was never killed.

    Args:
        params: tiny's, of which nothing is used.
        folder: for both jobs; both curves are left there, for the record.
    """
    del params
    command = [sys.executable, "-m", "moviegen.proofs.killed", str(KILLS)]
    subprocess.run(command, check=True, env=os.environ | {"MOVIEGEN_OUTPUTS": str(folder)}, stdout=sys.stderr)
    yield from held(json.loads((folder / KEPT).read_text(encoding="utf-8")))


def held(found: dict[str, Any]) -> Iterator[Proof]:
    """What must hold of two jobs."""
    one, other, kills = found["undisturbed"], found["killed"], len(found["kills"])
    claim = "Training that is killed goes on from its last checkpoint as if nothing had happened"
    yield Proof(claim, f"kills of a job of {found['steps']} steps", kills, found["asked"], 1, found["asked"])
    losses = sum(map(len, one["losses"].values()))
    for quantity, measured in (
        (f"of {losses} losses of training and validation", differing(one["losses"], other["losses"])),
        ("of as many learning rates, gradient norms and the rest of these steps", found["lines"]),
        (f"of {len(one['files'])} files of trained weights and samples", differing(one["files"], other["files"])),
    ):
        yield Proof(claim, f"{quantity}, those that are not the same to the last bit", measured, 0, 0, 0)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """How many values of two are not the same, or are in one alone; of curves, how many points."""
    points, others = (
        {(name, place): point for name, value in of.items() for place, point in enumerate(as_list(value))}
        for of in (one, other)
    )
    return sum(
        point not in points or point not in others or points[point] != others[point] for point in points | others
    )


def as_list(value: Any) -> list[Any]:
    """A curve's points, or the one value."""
    return value if isinstance(value, list) else [value]


def trained(run: Run) -> dict[str, Any]:
    """What a finished run leaves: losses by step, hashes of weights and samples, and what its metrics say of steps."""
    said = {kind: [line for line in read_metrics(run.metrics_path) if line["kind"] == kind] for kind in KINDS}
    return {
        "losses": {kind: [[line["step"], line["loss"]] for line in lines] for kind, lines in said.items()},
        "files": {
            str(path.relative_to(run.folder)): checksum(path)
            for pattern in ("*.safetensors", "samples/*")
            for path in sorted(run.folder.glob(pattern))
        },
        "lines": {kind: repeated.lines(lines) for kind, lines in said.items()},
    }


def prepare(params: Params) -> None:
    """Runs what the stage needs, each program once."""
    for name in needed(params, STAGE):
        start(runs.find(params, name))


def needed(params: Params, name: str) -> list[str]:
    """The programs that one needs, each after those that it needs itself."""
    found: dict[str, None] = {}
    for one in registry.find(name).needs(params):
        found |= dict.fromkeys((*needed(params, one), one))
    return list(found)


def start(run: Run, moment: Moment | None = None) -> bool:
    """Runs a job to its end, or to a moment at which all of its processes are killed; whether it came to its end.

    Raises:
        WorkerError: it failed by itself.
    """
    run.write_params()
    killed = threading.Event()

    def strike() -> None:
        killed.set()
        kill()

    def look(line: dict[str, Any]) -> None:
        if moment and moment.is_reached(line) and not killed.is_set():
            time.sleep(moment.delay)
            strike()

    timer = threading.Timer(moment.delay, strike) if moment and moment.step is None else None
    if timer:
        timer.start()
    try:
        run_job(run.job(), look)
    except WorkerError:
        if not killed.is_set():
            raise
        return False
    finally:
        if timer:
            timer.cancel()
            timer.join()  # a strike under way must not reach the next job
    return True


def kill() -> None:
    """`kill -9` of every process below this one: the guard and what it guards."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # the guard's end ended it
            process.kill()


def both(params: Params, kills: int) -> dict[str, Any]:
    """Trains the stage without and with kills."""
    prepare(params)
    run = runs.find(params, STAGE)
    start(run)
    undisturbed = trained(run)
    shutil.rmtree(run.folder)
    died = []
    for number, moment in enumerate(moments(kills, STEPS), 1):
        if start(run, moment):
            break  # it came to its end before the moment
        last = read_metrics(run.metrics_path)
        step = max((line["step"] for line in last if line["kind"] == "train"), default=0)
        died.append({"step": step, "during": last[-1]["kind"] if last else "start"})
        print(f"killed {number} of {kills}, at step {step}, after {died[-1]['during']}", flush=True)
    start(run)
    killed = trained(run)
    return {
        "asked": kills,
        "steps": STEPS,
        "kills": died,
        "lines": differing(undisturbed.pop("lines"), killed.pop("lines")),
        "undisturbed": undisturbed,
        "killed": killed,
    }


def main(kills: int) -> None:
    """Leaves what was found in MOVIEGEN_OUTPUTS."""
    folder = Path(os.environ["MOVIEGEN_OUTPUTS"])
    write_json(folder / KEPT, both(load("smoke", SMALL), kills))


if __name__ == "__main__":
    main(int(sys.argv[1]))
