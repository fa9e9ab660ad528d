"""The arithmetic of what is proven of the transformer; its children are run by the proofs themselves."""

import pytest

from moviegen.config import load
from moviegen.plan.memory import FLOAT32, start_bytes
from moviegen.proofs import transformer

CONFIG = transformer.of_width(load("tiny").dit_config(1), 1024)


def test_a_rank_that_built_the_whole_would_not_hold():
    whole = start_bytes(CONFIG, 1, 0)
    assert transformer.started(CONFIG, 1, whole).holds
    assert not transformer.started(CONFIG, 4, whole).holds
    assert transformer.started(CONFIG, 4, whole // 4).predicted == start_bytes(CONFIG, 4, 3) / 2**20


def test_what_is_counted_falls_with_the_ranks():
    largest = FLOAT32 * 6 * CONFIG.width**2
    one, four = (start_bytes(CONFIG, ranks, 3 if ranks > 1 else 0) - largest for ranks in (1, 4))
    assert one / four == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("last", "holds"), [(1.001, True), (1.02, False), (float("nan"), False)])
def test_a_loss_that_moved_does_not_hold(last, holds):
    plain = [2.0] * transformer.UPDATES
    assert (
        transformer.held("moment_dtype", [*plain[: -transformer.LAST], *[2 * last] * transformer.LAST], plain).holds
        is holds
    )
