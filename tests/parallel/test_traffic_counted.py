"""The plan's traffic, call by call and byte by byte, is what the compiled graphs of a job's updates hold.

The graphs are MindSpore's own text, written after its last pass: the backward pass is in them, and what is recomputed.
"""

import math

import pytest

from moviegen.device import compiled
from moviegen.device.graph_text import exchanged
from moviegen.launch.run import run_job
from moviegen.plan.traffic import Exchange, by_collective, on_cpu, token_traffic, weight_traffic
from tests.parallel import divided
from tests.parallel.divided import Case, job
from tests.parallel.runtime_worker import CONFIG, SAMPLES, SHAPES

CARD = "card"
# Of three workers, who divide no weight evenly; what two and four of them compute, test_runtime has them compute.
OF_THREE = [Case("zero 1 of three", zero=1, media=("image",)), Case("zero 3 of three", zero=3, media=("image",))]
# Updates that two workers compile as on a card, with all four collectives, and with recomputation.
AS_ON_A_CARD = [
    Case("card, zero 0, shards, recomputed", 2, 0, 1, 2, keep_attention=True),
    Case("card, zero 1", zero=1),
    Case("card, zero 2, shards, every other", 2, 2, 2),
    Case("card, zero 3, shards, recomputed", 2, 3, 1, 2),
    Case("card, zero 3, every other", 1, 3, 2, keep_attention=True),
]


class Graphs(dict):
    """Case -> (collective, type) -> calls and bytes in each graph of rank 0; a job runs when first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        is_card = name in [case.name for case in AS_ON_A_CARD]
        form, workers, cases = ("card", 2, AS_ON_A_CARD) if is_card else ("cpu", 3, OF_THREE)
        folder = self.folder / form
        folder.mkdir()
        run_job(
            job(
                "tests.parallel.traffic_worker", folder, workers, cases,
                MOVIEGEN_FORM=form, MOVIEGEN_OPERATORS="mindspore",
            )
        )  # fmt: skip
        for one in cases:
            self[one.name] = exchanged(folder / one.name / "rank_0")
        return self[name]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return Graphs(tmp_path_factory.mktemp("graphs"))


def planned(case, workers, form, moments):
    """(collective, type) -> calls and bytes of the plan's rows of these moments, as a card or a CPU does them."""
    is_compiled, dtype = form == compiled.COMPILED, "bfloat16" if form == CARD else "float32"
    again = CONFIG.num_layers // case.recompute if case.recompute and not is_compiled else 0
    tokens = math.prod(SHAPES[case.media[0]][1:]) // 4
    samples = SAMPLES // (workers // case.shards)
    rows = [
        *weight_traffic(CONFIG, case.zero, workers, dtype, is_compiled=is_compiled),
        *token_traffic(CONFIG, tokens, samples, case.shards, again, dtype),
        Exchange("all-reduce", "loss", "float32", "update", "job", workers, 1, 4),
    ]
    rows = [row for row in rows if row.moment in moments]
    return by_collective(rows if form == CARD else [on_cpu(row, workers) for row in rows])


def all_of(graphs):
    """The sum over graphs."""
    keys = {key for graph in graphs for key in graph}
    return {key: tuple(map(sum, zip(*(graph[key] for graph in graphs if key in graph), strict=True))) for key in keys}


def assert_as_planned(graphs, case, workers, form=compiled.MINDSPORE):
    if case.micro_batches == 1:  # one graph
        assert len(graphs) == 1
        assert graphs[0] == planned(case, workers, form, ("micro-batch", "update"))
        return
    # `Backward`, which runs once a micro-batch, `Finish`, and, where it was computed, the average of the losses
    backward, *rest = graphs
    loss = [{("all-reduce", "float32"): (1, 4)}] if form == CARD else []
    assert backward == planned(case, workers, form, ("micro-batch",))
    assert all_of([*rest, *loss]) == planned(case, workers, form, ("update",))


@pytest.mark.parametrize("name", divided.cases(*(name for name in divided.CASES if divided.WORKERS[name] > 1)))
def test_an_update_that_is_computed_exchanges_what_the_plan_says(name, results):
    results[name]
    assert_as_planned(results.graphs[name], divided.CASES[name], divided.WORKERS[name], compiled.current().name)


@pytest.mark.whole_job
@pytest.mark.parametrize("case", OF_THREE, ids=lambda case: case.name)
def test_so_it_does_where_no_weight_divides_evenly(case, graphs):
    assert_as_planned(graphs[case.name], case, 3)


@pytest.mark.whole_job
@pytest.mark.parametrize("case", AS_ON_A_CARD, ids=lambda case: case.name)
def test_so_does_what_is_compiled_as_on_a_card(case, graphs):
    assert_as_planned(graphs[case.name], case, 2, CARD)
