"""The plan's traffic, call by call and byte by byte, is what the compiled graphs of a job's updates hold.

The graphs are MindSpore's own text, written after its last pass: the backward pass is in them, and what is recomputed.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

from moviegen.device.graph_text import dump_environment, exchanged
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.plan.traffic import Exchange, by_collective, on_cpu, token_traffic, weight_traffic
from tests.parallel.runtime_worker import CONFIG, SAMPLES, SHAPES

pytestmark = pytest.mark.whole_job
ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """A way to divide an update, and how it is computed."""

    name: str
    medium: str
    shards: int
    zero: int
    recompute: int = 0
    keep_attention: bool = False
    micro_batches: int = 1


# Updates that are computed, by the number of workers. Each stage has one and two micro-batches, one and two shards.
# Three workers divide no weight evenly, and four not the six tokens of an image.
COMPUTED = {
    2: [
        Case("zero 0", "video", 1, 0),
        Case("zero 0, shards, micro-batches", "video", 2, 0, micro_batches=2),
        Case("zero 1, micro-batches", "video", 1, 1, micro_batches=2),
        Case("zero 1, shards", "video", 2, 1),
        Case("zero 2", "video", 1, 2),
        Case("zero 2, shards, micro-batches", "video", 2, 2, micro_batches=2),
        Case("zero 3, micro-batches", "video", 1, 3, micro_batches=2),
        Case("zero 3, shards", "video", 2, 3),
    ],
    3: [Case("zero 1 of three", "image", 1, 1), Case("zero 3 of three", "image", 1, 3)],
    4: [Case("four shards, zero 2", "image", 4, 2), Case("2x2, zero 3", "image", 2, 3)],
}
# Updates that are compiled as on a card, with all four collectives, and with recomputation.
COMPILED = {
    2: [
        Case("card, zero 0, shards, recomputed", "video", 2, 0, 1, True, 2),
        Case("card, zero 1", "video", 1, 1),
        Case("card, zero 2, shards, every other", "video", 2, 2, 2, False, 1),
        Case("card, zero 3, shards, recomputed", "video", 2, 3, 1, False, 2),
        Case("card, zero 3, every other", "video", 1, 3, 2, True, 1),
    ]
}


class Graphs(dict):
    """Case -> (operator, type, bytes) counted in each of the graphs of rank 0; a job runs when first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, case):
        form = "card" if case in COMPILED[2] else "cpu"
        workers = workers_of(case)
        cases = (COMPILED if form == "card" else COMPUTED)[workers]
        folder = self.folder / f"{form}{workers}"
        folder.mkdir()
        run_job(job(folder, workers, cases, form))
        for one in cases:
            self[one] = exchanged(folder / one.name / "rank_0")
        return self[case]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return Graphs(tmp_path_factory.mktemp("graphs"))


def job(folder, workers, cases, form):
    return Job(
        command=(
            "python", "-m", "tests.parallel.traffic_worker", str(folder), json.dumps([case._asdict() for case in cases])
        ),
        log_dir=folder / "logs",
        worker_num=workers,
        local_worker_num=workers,
        environment={
            "PYTHONPATH": str(ROOT),
            "MOVIEGEN_FORM": form,
            "MOVIEGEN_OPERATORS": "mindspore",
            **dump_environment(folder / "graphs"),
        },
    )  # fmt: skip


def workers_of(case):
    return next(number for jobs in (COMPUTED, COMPILED) for number, cases in jobs.items() if case in cases)


def planned(case, moments):
    """(collective, type) -> calls and bytes of the plan's rows of these moments, as a card or a CPU does them."""
    workers, is_card = workers_of(case), case in COMPILED[2]
    dtype = "bfloat16" if is_card else "float32"
    again = CONFIG.num_layers // case.recompute if case.recompute else 0
    tokens = math.prod(SHAPES[case.medium][1:]) // 4
    samples = SAMPLES // (workers // case.shards)
    rows = [
        *weight_traffic(CONFIG, case.zero, workers, dtype),
        *token_traffic(CONFIG, tokens, samples, case.shards, again, dtype),
        Exchange("all-reduce", "loss", "float32", "update", "job", workers, 1, 4),
    ]
    rows = [row for row in rows if row.moment in moments]
    return by_collective(rows if is_card else [on_cpu(row, workers) for row in rows])


def all_of(graphs):
    """The sum over graphs."""
    keys = {key for graph in graphs for key in graph}
    return {key: tuple(map(sum, zip(*(graph[key] for graph in graphs if key in graph), strict=True))) for key in keys}


CASES = [case for jobs in (COMPUTED, COMPILED) for cases in jobs.values() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_update_exchanges_what_the_plan_says(case, graphs):
    found = graphs[case]
    if case.micro_batches == 1:  # one graph
        assert len(found) == 1
        assert found[0] == planned(case, ("micro-batch", "update"))
        return
    # `Backward`, which runs once a micro-batch, `Finish`, and, where it was computed, the average of the losses
    backward, *rest = found
    loss = [] if len(rest) == 2 else [{("all-reduce", "float32"): (1, 4)}]
    assert backward == planned(case, ("micro-batch",))
    assert all_of([*rest, *loss]) == planned(case, ("update",))
