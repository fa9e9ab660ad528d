"""What is proven of a job that is killed, and that each part can fail; whole jobs are in tests/parallel."""

import copy

from moviegen.config import load
from moviegen.proofs import killed

CURVES = {"train": [[1, 2.5], [2, 2.25]], "validation": [[0, 2.5]]}
JOB = {"losses": CURVES, "files": {"dit.safetensors": "ab"}}
FOUND = {
    "asked": 30, "steps": 2, "lines": 0, "kills": [{"step": 1, "during": "train"}] * 30,
    "undisturbed": JOB, "killed": JOB,
}  # fmt: skip


def verdicts(**changes):
    return [proof.holds for proof in killed.held(copy.deepcopy(FOUND | changes))]


def test_a_single_loss_weight_or_rate_that_differs_does_not_hold():
    assert verdicts() == [True] * 4
    assert verdicts(kills=[]) == [False, True, True, True]
    next_to = {"train": [[1, 2.5], [2, 2.2500000000000004]], "validation": [[0, 2.5]]}
    assert verdicts(killed=JOB | {"losses": next_to}) == [True, False, True, True]
    assert verdicts(killed=JOB | {"losses": CURVES | {"validation": []}}) == [True, False, True, True]
    assert verdicts(lines=1) == [True, True, False, True]
    assert verdicts(killed=JOB | {"files": {"dit.safetensors": "ac"}}) == [True, True, True, False]
    assert verdicts(killed=JOB | {"files": {}}) == [True, True, True, False]


def test_kills_come_at_different_moments_all_over_the_job():
    moments = killed.moments(killed.KILLS, killed.STEPS)
    assert moments == killed.moments(killed.KILLS, killed.STEPS)
    steps = [moment.step for moment in moments if moment.step is not None]
    assert len(steps) == killed.KILLS // 2  # the others come while a job starts
    assert steps == sorted(set(steps)) and steps[0] < 20 and 90 < steps[-1] < killed.STEPS - 10
    assert len({moment.delay for moment in moments}) == killed.KILLS


def test_a_moment_is_reached_by_the_step_it_waits_for_or_a_later_one():
    lines = [("train", 4), ("validation", 5), ("train", 5), ("train", 6)]

    def reached(moment):
        return [moment.is_reached({"kind": kind, "step": step}) for kind, step in lines]

    assert reached(killed.Moment(5, 0.0)) == [False, False, True, True]
    assert not any(reached(killed.Moment(None, 0.0)))  # it waits for the clock


def test_all_that_the_stage_needs_comes_before_it():
    params = load("smoke", killed.SMALL)
    assert killed.needed(params, killed.STAGE) == ["data", "tae-mixkit", "latents", "text"]
    assert params.recipes[1].train.steps == killed.STEPS
    assert params.recipes[1].train.save.interval < killed.STEPS // 2
