"""What the proofs hold measurements against, and that each can fail."""

import numpy as np
import pytest

from moviegen import config
from moviegen.config import Save
from moviegen.dit.model import DiT
from moviegen.proofs import checkpoints as proof
from moviegen.train.checkpoint import Checkpoints, Part

SMALL = 1  # layer


@pytest.fixture(scope="module")
def resized():
    return proof.resized(config.load("tiny"), SMALL)


def test_a_rank_is_held_to_its_share_of_four_copies_of_the_network(resized):
    numbers = sum(weight.size for weight in DiT(resized).get_parameters())
    shares = [{"bytes": 4 * 4 * numbers // 2 + header} for header in (2000, 0)]
    assert proof.bytes_proof(resized, 3, shares).predicted == pytest.approx(8 * numbers / 2**20)
    assert proof.bytes_proof(resized, 3, shares).holds
    assert not proof.bytes_proof(resized, 3, [{"bytes": 16 * numbers}, {"bytes": 0}]).holds  # rank 0 writes all


def test_memory_beyond_a_copy_does_not_hold(resized):
    copy = proof.rank_checkpoint(resized, 1, has_average=True)
    good = proof.memory_proofs(resized, {"saving": copy, "loading": copy // 4})
    assert [one.holds for one in good] == [True, True]
    bad = proof.memory_proofs(resized, {"saving": 2 * copy + proof.SLACK, "loading": copy + proof.SLACK})
    assert [one.holds for one in bad] == [False, False]
    assert list(proof.memory_proofs(resized, {"saving": None, "loading": None})) == []


def test_a_single_bit_shows(tmp_path):
    checkpoints, values = Checkpoints(tmp_path, Save()), np.arange(6, dtype=np.float32)
    for step in (1, 2, 3):
        changed = values.copy()
        changed.view(np.uint32)[4] ^= step == 3
        checkpoints.save(step, [Part("weights/a", (2, 3), 0, changed), Part("ema/a", (2, 3), 0, values)], {})
    assert proof.bits_proof([checkpoints.at(step) for step in (1, 2)]).holds
    differing = proof.bits_proof([checkpoints.at(step) for step in (1, 2, 3)])
    assert (differing.measured, differing.holds) == (1, False)
    assert "of 2, as the state goes from job to job of 1, 1, 1 ranks" in differing.quantity


def test_waiting_for_the_whole_save_does_not_hold():
    found = {"bytes": 2**20, "copying": 0.1, "seconds": 1.0}
    assert proof.waiting_proof(found).holds
    assert not proof.waiting_proof(found | {"copying": 1.0}).holds
