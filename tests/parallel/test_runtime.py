"""A job of N workers computes what one worker computes, however tokens and state are divided."""

import json
from pathlib import Path

import numpy as np
import pytest

from moviegen import plan
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.runs.weights import load_arrays
from tests.parallel.runtime_worker import CONFIG

ROOT = Path(__file__).parents[2]
# Jobs of so many workers: (name, sequence shards, ZeRO stage, every n-th block is recomputed, micro-batches an update,
# media whose gradients are compared); each medium of each case costs a compilation on all workers, and only four shards
# do not divide an image's tokens. Micro-batches are of different samples, and their truth is one process that takes all
# of them as one batch.
JOBS = [
    (1, [("alone", 1, 0, 0, 1, ("video",)), ("alone, joined", 1, 0, 0, 1, ("image", "video"))]),
    (2, [("ulysses 2, recomputed", 2, 0, 2, 1, ("video",)), ("zero 3", 1, 3, 0, 1, ("video",))]),
    (2, [("data 2", 1, 0, 0, 1, ("video",)), ("zero 1", 1, 1, 0, 2, ("video",)), ("zero 2", 1, 2, 0, 2, ("video",))]),
    (
        4,
        [
            ("ulysses 4", 4, 0, 0, 2, ("image", "video")),
            ("mesh 2x2", 2, 0, 0, 1, ("video",)),
            ("mesh 2x2 zero 1", 2, 1, 0, 2, ("video",)),
            ("mesh 2x2 zero 2", 2, 2, 0, 2, ("video",)),
            ("mesh 2x2 zero 3, recomputed", 2, 3, 1, 2, ("video",)),
        ],
    ),
]
SETTINGS = {name: (workers, *rest) for workers, cases in JOBS for name, *rest in cases}
QUICK = {name for _, cases in JOBS[:2] for name, *_ in cases}  # what `make test` runs; the rest is of `--all`


def cases(*tuples):
    """Parameters of a test, each a case's name or a tuple of names and other things."""
    marked = []
    for values in tuples:
        values = values if isinstance(values, tuple) else (values,)
        is_quick = all(value in QUICK for value in values if value in SETTINGS)
        marked.append(pytest.param(*values, marks=() if is_quick else pytest.mark.whole_job))
    return marked


DIVIDED = [name for name in SETTINGS if not name.startswith("alone")]
GRADIENTS = [(name, medium) for name in DIVIDED for medium in SETTINGS[name][5]]


class Results(dict):
    """Case -> (arrays, facts of each rank); the job that a case is of runs when it is first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        place = next(place for place, (_, cases) in enumerate(JOBS) if name in [case[0] for case in cases])
        (workers, cases), folder = JOBS[place], self.folder / f"job{place}"
        folder.mkdir()
        keys = ("name", "shards", "zero", "recompute", "micro_batches", "media")
        described = [
            dict(zip(keys, case, strict=True)) | {"joined": 2 if case[0] == "alone, joined" else 1} for case in cases
        ]
        run_job(
            Job(
                command=("python", "-m", "tests.parallel.runtime_worker", str(folder), json.dumps(described)),
                log_dir=folder / "logs",
                worker_num=workers,
                local_worker_num=workers,
                environment={"PYTHONPATH": str(ROOT)},
            )
        )
        for case, *_ in cases:
            facts = [json.loads((folder / f"{case}-{rank}.json").read_text()) for rank in range(workers)]
            self[case] = load_arrays(folder / f"{case}.safetensors")[0], facts
        return self[name]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("jobs"))


def truth(name, results):
    """What one worker computes of the same samples."""
    return results["alone" if SETTINGS[name][4] == 1 else "alone, joined"]


@pytest.mark.parametrize(("name", "medium"), cases(*GRADIENTS))
def test_every_gradient_equals_that_of_one_worker(name, medium, results):
    (alone, alone_facts), (divided, facts) = truth(name, results), results[name]
    gradients = {key: array for key, array in alone.items() if key.startswith(f"{medium} gradient")}
    assert len(gradients) == 44
    for key, array in gradients.items():
        assert np.abs(divided[key] - array).max() <= 1e-5 * np.abs(array).max(), key
    for rank in facts:
        assert rank[f"norm {medium}"] == pytest.approx(alone_facts[0][f"norm {medium}"], rel=1e-5)
    losses = [rank[f"loss {medium}"] for rank in facts]
    assert np.mean(losses) == pytest.approx(alone_facts[0][f"loss {medium}"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "like"),
    cases(
        ("zero 3", "data 2"),
        ("zero 2", "zero 1"),
        ("mesh 2x2 zero 2", "mesh 2x2 zero 1"),
        ("mesh 2x2 zero 3, recomputed", "mesh 2x2 zero 1"),
    ),
)
def test_weights_after_twenty_clipped_updates_do_not_depend_on_zero(name, like, results):
    for key, array in results[like][0].items():
        if key.startswith("weight"):
            np.testing.assert_allclose(results[name][0][key], array, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", cases(*DIVIDED))
def test_losses_and_norms_of_twenty_clipped_updates_equal_those_of_one_worker(name, results):
    alone, facts = truth(name, results)[1][0], results[name][1]
    np.testing.assert_allclose(np.mean([rank["losses"] for rank in facts], 0), alone["losses"], rtol=1e-5)
    np.testing.assert_allclose([rank["norms"] for rank in facts], [alone["norms"]] * len(facts), rtol=1e-3)
    assert max(alone["norms"]) > 0.5  # the clipping did something


@pytest.mark.parametrize("name", cases(*DIVIDED))
def test_all_ranks_end_with_the_same_weights(name, results):
    assert len({rank["digest"] for rank in results[name][1]}) == 1


@pytest.mark.parametrize("name", cases(*SETTINGS))
def test_each_rank_holds_its_computed_share(name, results):
    ranks, _, zero, _, micro_batches, _ = SETTINGS[name]
    computed = plan.state_bytes(CONFIG, ranks, zero, micro_batches)  # exact: 2 and 4 divide every tensor
    for rank in results[name][1]:
        assert rank["bytes"] == vars(computed)
        assert rank["bytes of all parameters"] == computed.total + 8  # the loss scale, the count of updates


@pytest.mark.parametrize("name", cases("zero 1", "ulysses 4"))
def test_ranks_speak_of_gradients_once_an_update(name, results):
    """Not in each micro-batch: until then each has sums of its own. ZeRO 2 has no room for them."""
    ranks = [rank["sums"] for rank in results[name][1]]
    assert len(set(ranks)) == len(ranks)


def test_dividing_saves_what_it_should(results):
    alone, two = (results[name][1][0]["bytes"] for name in ("alone", "zero 3"))
    assert alone["parameters"] == 4 * sum(
        array.size for key, array in results["alone"][0].items() if key.startswith("weight ")
    )
    assert sum(two.values()) < 0.56 * sum(alone.values())
