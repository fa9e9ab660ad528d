"""A job of N workers computes what one worker computes, however tokens and state are divided."""

import numpy as np
import pytest

from moviegen import plan
from tests.parallel.divided import CASES, WORKERS, cases
from tests.parallel.runtime_worker import CONFIG

DIVIDED = [name for name in CASES if not name.startswith("alone")]
GRADIENTS = [(name, medium) for name in DIVIDED for medium in CASES[name].media]


def truth(name, results):
    """What one worker computes of the same samples."""
    return results["alone" if CASES[name].micro_batches == 1 else "alone, joined"]


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


@pytest.mark.parametrize("name", cases(*CASES))
def test_each_rank_holds_its_computed_share(name, results):
    computed = plan.state_bytes(
        CONFIG, WORKERS[name], CASES[name].zero, CASES[name].micro_batches
    )  # exact: 2 and 4 divide every tensor
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
