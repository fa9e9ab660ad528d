"""Sampling on many cards: jobs of two and four workers against one, and what is foretold of a rank's weights."""

import pytest

from moviegen import config
from moviegen.dit.inference import load_dit
from moviegen.parallel.mesh import Mesh
from moviegen.proofs import cards


def held(proofs):
    """All of them, at least one."""
    found = list(proofs)
    assert found
    for proof in found:
        assert proof.holds, proof
    return found


def test_two_workers_with_divided_weights_sample_the_clips_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "DIVISIONS", (cards.Division(2, 2, 3),))
    held(cards.same_clips(tmp_path))
    latents = cards.latents(tmp_path, cards.Division(1), 3)
    assert abs(latents[0] - latents[1]).max() > 0.1  # other prompts, other clips


@pytest.mark.whole_job
def test_two_and_four_workers_sample_the_clips_of_one_however_they_share(tmp_path):
    held(cards.same_clips(tmp_path))


@pytest.mark.whole_job
def test_memory_seconds_and_what_is_made_again_are_as_foretold(tmp_path):
    for measured in (cards.divided_memory, cards.resumed):
        (own := tmp_path / measured.__name__).mkdir()
        held(measured(own))


@pytest.mark.parametrize("parts", [1, 4])
def test_the_bytes_of_a_ranks_weights_are_those_of_its_parameters(tmp_path, parts):
    cards.random_weights(tmp_path, cards.SMALL)
    mesh = Mesh(0, parts, 1)
    dit = load_dit(tmp_path / cards.WEIGHTS, cards.SMALL, mesh=mesh, zero_stage=3)
    found = sum(parameter.nbytes for parameter in dit.get_parameters())
    assert found == pytest.approx(cards.weight_bytes(cards.SMALL, parts), rel=1e-3)


def test_groups_take_turns_and_none_waits_for_another():
    def turns(size, shards, in_step):
        return [list(Mesh(rank, size, shards).turns("abcde", in_step)) for rank in range(size)]

    two = turns(2, 1, in_step=False)
    assert two == [[("a", True), ("c", True), ("e", True)], [("b", True), ("d", True)]]
    assert turns(4, 2, in_step=False) == [two[0], two[0], two[1], two[1]]
    assert turns(2, 1, in_step=True)[1] == [("b", True), ("d", True), ("e", False)]
    assert turns(4, 4, in_step=True) == [[(item, True) for item in "abcde"]] * 4


def test_shards_are_as_many_as_divide_workers_and_heads():
    sample = config.load("30B").sample
    assert [sample.shards_among(workers, 48) for workers in (1, 4, 8, 16, 12)] == [1, 4, 8, 8, 4]
    assert sample.shards_among(8, 6) == 2
