"""Jobs of several workers that share what they compute in every way there is, each run once for all tests of it."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from moviegen.device.graph_text import dump_environment, exchanged
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.runs.weights import load_arrays

ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """A way to divide an update, and how it is computed: every n-th block may be recomputed, 0 is none.

    Micro-batches are of different samples, and their truth is one process that takes all of them as one batch. Each
    medium of a case costs a compilation on all workers; only four shards do not divide an image's tokens.
    """

    name: str
    shards: int = 1
    zero: int = 0
    recompute: int = 0
    micro_batches: int = 1
    media: tuple[str, ...] = ("video",)
    keep_attention: bool = False
    joined: int = 1


# By number of workers.
JOBS = [
    (1, [Case("alone"), Case("alone, joined", media=("image", "video"), joined=2)]),
    (2, [Case("ulysses 2, recomputed", 2, recompute=2), Case("zero 3", zero=3)]),
    (2, [Case("data 2"), Case("zero 1", zero=1, micro_batches=2), Case("zero 2", zero=2, micro_batches=2)]),
    (
        4,
        [
            Case("ulysses 4", 4, micro_batches=2, media=("image", "video")),
            Case("mesh 2x2", 2),
            Case("mesh 2x2 zero 1", 2, 1, micro_batches=2),
            Case("mesh 2x2 zero 2", 2, 2, micro_batches=2),
            Case("mesh 2x2 zero 3, recomputed", 2, 3, 1, micro_batches=2),
        ],
    ),
]
CASES = {case.name: case for _, cases in JOBS for case in cases}
WORKERS = {case.name: workers for workers, cases in JOBS for case in cases}
QUICK = {case.name for _, cases in JOBS[:2] for case in cases}  # what `make test` runs; the rest is of `--all`


def cases(*tuples):
    """Parameters of a test, each a case's name or a tuple of names and other things."""
    marked = []
    for values in tuples:
        values = values if isinstance(values, tuple) else (values,)
        is_quick = all(value in QUICK for value in values if value in CASES)
        marked.append(pytest.param(*values, marks=() if is_quick else pytest.mark.whole_job))
    return marked


def job(worker, folder, workers, described, **environment):
    """Workers of a module of this folder, which are told a folder and cases and leave the text of their graphs."""
    return Job(
        command=("python", "-m", worker, str(folder), json.dumps([case._asdict() for case in described])),
        log_dir=folder / "logs",
        worker_num=workers,
        local_worker_num=workers,
        environment={"PYTHONPATH": str(ROOT), **dump_environment(folder / "graphs"), **environment},
    )


class Results(dict):
    """Case -> (arrays, facts of each rank); the job that a case is of runs when it is first asked for.

    Attributes:
        graphs: case -> (collective, type) -> calls and bytes in each graph of an update, on rank 0.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder, self.graphs = folder, {}

    def __missing__(self, name):
        place = next(place for place, (_, cases) in enumerate(JOBS) if CASES[name] in cases)
        (workers, cases), folder = JOBS[place], self.folder / f"job{place}"
        folder.mkdir()
        run_job(job("tests.parallel.runtime_worker", folder, workers, cases))
        for case in cases:
            facts = [json.loads((folder / f"{case.name}-{rank}.json").read_text()) for rank in range(workers)]
            self[case.name] = load_arrays(folder / f"{case.name}.safetensors")[0], facts
            self.graphs[case.name] = exchanged(folder / case.name)
        return self[name]
