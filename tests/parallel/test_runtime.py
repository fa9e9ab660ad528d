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
# (name, sequence shards, ZeRO stage, every n-th block is recomputed, media whose gradients are compared); each medium
# costs a compilation
CASES = {
    1: [("alone", 1, 0, 0, ("image", "video"))],
    2: [
        ("data 2", 1, 0, 0, ("video",)),
        ("ulysses 2, recomputed", 2, 0, 2, ("image", "video")),
        ("zero 1", 1, 1, 0, ("video",)),
        ("zero 2", 1, 2, 0, ("video",)),
        ("zero 3", 1, 3, 0, ("video",)),
    ],
    4: [
        ("ulysses 4", 4, 0, 0, ("image", "video")),
        ("mesh 2x2", 2, 0, 0, ("image", "video")),
        ("mesh 2x2 zero 2", 2, 2, 0, ("video",)),
        ("mesh 2x2 zero 3, recomputed", 2, 3, 1, ("image", "video")),
    ],
}
SETTINGS = {name: (workers, *rest) for workers, cases in CASES.items() for name, *rest in cases}
DIVIDED = [name for name in SETTINGS if name != "alone"]
GRADIENTS = [(name, medium) for name in DIVIDED for medium in SETTINGS[name][4]]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Case -> (arrays, facts of each rank)."""
    found = {}
    for workers, cases in CASES.items():
        folder = tmp_path_factory.mktemp(f"workers{workers}")
        described = json.dumps(
            [dict(zip(("name", "shards", "zero", "recompute", "media"), case, strict=True)) for case in cases]
        )
        command = ("python", "-m", "tests.parallel.runtime_worker", str(folder), described)
        job = Job(
            command=command,
            log_dir=folder / "logs",
            worker_num=workers,
            local_worker_num=workers,
            environment={"PYTHONPATH": str(ROOT)},
        )
        run_job(job)
        for name, *_ in cases:
            facts = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(workers)]
            found[name] = load_arrays(folder / f"{name}.safetensors")[0], facts
    return found


@pytest.mark.parametrize(("name", "medium"), GRADIENTS)
def test_every_gradient_equals_that_of_one_worker(name, medium, results):
    (alone, alone_facts), (found, facts) = results["alone"], results[name]
    wanted = {key: array for key, array in alone.items() if key.startswith(f"{medium} gradient")}
    assert len(wanted) == 44
    for key, array in wanted.items():
        assert np.abs(found[key] - array).max() <= 1e-5 * np.abs(array).max(), key
    for rank in facts:
        assert rank[f"norm {medium}"] == pytest.approx(alone_facts[0][f"norm {medium}"], rel=1e-5)
    losses = [rank[f"loss {medium}"] for rank in facts]
    assert np.mean(losses) == pytest.approx(alone_facts[0][f"loss {medium}"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        *((f"zero {stage}", "data 2") for stage in (1, 2, 3)),
        ("mesh 2x2 zero 2", "mesh 2x2"),
        ("mesh 2x2 zero 3, recomputed", "mesh 2x2"),
    ],
)
def test_weights_after_twenty_clipped_updates_equal_those_without_zero(name, like, results):
    for key, array in results[like][0].items():
        if key.startswith("weight"):
            np.testing.assert_allclose(results[name][0][key], array, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", DIVIDED)
def test_losses_and_norms_of_twenty_clipped_updates_equal_those_of_one_worker(name, results):
    alone, facts = results["alone"][1][0], results[name][1]
    np.testing.assert_allclose(np.mean([rank["losses"] for rank in facts], 0), alone["losses"], rtol=1e-5)
    np.testing.assert_allclose([rank["norms"] for rank in facts], [alone["norms"]] * len(facts), rtol=1e-3)
    assert max(alone["norms"]) > 0.5  # the clipping did something


@pytest.mark.parametrize("name", DIVIDED)
def test_all_ranks_end_with_the_same_weights(name, results):
    assert len({rank["digest"] for rank in results[name][1]}) == 1


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_rank_holds_its_computed_share(name, results):
    ranks, _, zero, *_ = SETTINGS[name]
    computed = plan.state_bytes(CONFIG, ranks, zero)  # exact: 2 and 4 divide every tensor
    for rank in results[name][1]:
        assert rank["bytes"] == vars(computed)
        assert rank["bytes of all parameters"] == computed.total + 8  # the loss scale, the count of updates


@pytest.mark.parametrize("name", ["data 2", "zero 1", "ulysses 4", "mesh 2x2"])
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
