"""Seconds of a training step: by hand, what must hold whatever the numbers, and how far the published tables are."""

from dataclasses import replace

import pytest

from moviegen import config, plan
from moviegen.config import Bucket, ConfigError
from moviegen.plan.cards import find_card
from moviegen.plan.flops import dit_training
from moviegen.plan.published import TIMINGS
from moviegen.plan.time import (
    COLLECTIVES,
    MATRICES,
    Speed,
    Work,
    computing_seconds,
    exchanging_seconds,
    gathering_seconds,
    micro_batch_seconds,
    overlapped,
    recipe_work,
    stage_work,
    swapping_seconds,
    update_seconds,
)
from moviegen.plan.validate import (
    FEWEST,
    Measured,
    fit,
    impossible,
    measured,
    published_cases,
    split_errors,
    validate,
)

CARD = find_card("ascend-910b")
SHOWN, HIDDEN = Speed(attention=0.3, overhead=0.2, hidden=0.0), Speed(attention=0.4, overhead=0.25, hidden=1.0)
STAGES = [(size, stage) for size in ("1B", "5B", "30B") for stage in (1, 2, 3)]
WORK = Work("bfloat16", products=0, attention=0, samples=1, cards=8)


@pytest.fixture(scope="module")
def scales():
    return {size: config.load(size) for size in ("1B", "5B", "30B")}


@pytest.fixture(scope="module")
def validations():
    return {found.software: found for found in validate(measured(TIMINGS), CARD)}


def cards_work(params, stage, cards):
    recipe = params.recipes[stage]
    clip = Bucket(recipe.dataset.longest, *recipe.dataset.size)
    return recipe_work(params.dit_config(stage), recipe, params.text.lengths, cards, clip)


# ---- by hand


def test_computing_is_products_and_attention_over_the_peak():
    work = replace(WORK, products=376e12 * MATRICES, attention=376e12)
    assert computing_seconds(work, CARD, 0.5) == pytest.approx(1 + 2)
    assert computing_seconds(replace(work, dtype="float32"), CARD, 0.5) == pytest.approx(3 * 376 / 99)


@pytest.mark.parametrize(("hidden", "seconds"), [(0.0, 5.0), (0.5, 4.0), (1.0, 3.0)])
def test_of_the_shorter_a_share_is_hidden(hidden, seconds):
    assert overlapped(3.0, 2.0, hidden) == overlapped(2.0, 3.0, hidden) == seconds


def test_a_host_gathers_over_a_wire_to_each_other_card():
    part = 28e9  # bytes a second on one wire: 196 GB/s are seven
    assert gathering_seconds(8 * part, 8, CARD) == pytest.approx(1 / COLLECTIVES)
    assert gathering_seconds(2 * part, 2, CARD) == pytest.approx(1 / COLLECTIVES)
    assert gathering_seconds(1e9, 1, CARD) == 0


def test_hosts_gather_over_the_network_first():
    # of 16 parts of 1 GB a card gets the one of its twin over 25 GB/s, then seven pairs over 28 GB/s each
    assert gathering_seconds(16e9, 16, CARD) == pytest.approx((1 / 25 + 2 / 28) / COLLECTIVES)


def test_swaps_go_where_the_others_are():
    assert swapping_seconds(7e9, 8, CARD) == pytest.approx(1 / 28 / COLLECTIVES)
    assert swapping_seconds(15e9, 16, CARD) == pytest.approx((1 / 28 + 8 / 25) / COLLECTIVES)
    assert swapping_seconds(1e9, 1, CARD) == 0


def test_an_update_is_its_micro_batches_and_what_comes_once():
    work = replace(WORK, products=1e14, gathered=8e9, gathered_at_update=16e9, micro_batches=5)
    computed = 5 * computing_seconds(work, CARD, SHOWN.attention)
    exchanged = gathering_seconds(5 * 8e9 + 16e9, 8, CARD)
    assert update_seconds(work, CARD, SHOWN) == pytest.approx(computed + exchanged + 5 * SHOWN.overhead)
    assert update_seconds(work, CARD, HIDDEN) == pytest.approx(max(computed, exchanged) + 5 * HIDDEN.overhead)
    assert micro_batch_seconds(work, CARD, SHOWN) == pytest.approx(update_seconds(work, CARD, SHOWN) / 5)


@pytest.mark.parametrize(("zero_stage", "batch", "update", "scalars"), [(0, 0, 2, 1), (1, 0, 2, 2), (2, 1, 1, 2)])
def test_what_zero_exchanges(zero_stage, batch, update, scalars):
    """All weights so often; and the loss, with parts of gradients their norm too, there and back."""
    params = config.load("1B", {"train.settings.zero_stage": zero_stage})
    total = plan.parameter_count(params.dit_config(2)) + plan.position_count(params.dit_config(2))
    work = stage_work(params, 2)
    config_ = params.dit_config(2)
    of_time = config_.frequency_width * config_.width + config_.width**2
    halved = 2 * (plan.matrix_count(config_) - of_time) if zero_stage else 0  # matrices are gathered in bfloat16
    assert work.gathered == 4 * batch * total
    assert work.gathered_at_update == 4 * (update * total + 2 * scalars) - halved


def test_zero_3_borrows_a_matrix_twice_also_where_its_block_is_recomputed(scales):
    params = scales["5B"]
    config_, matrices = params.dit_config(1), plan.matrix_count(params.dit_config(1))
    others = plan.parameter_count(config_) + plan.position_count(config_) - matrices
    first = (64 + 4096 + 1280 + 1472) * 3072  # nobody asks for the gradient of what these multiply
    sinusoids, time = 256 * 3072, 256 * 3072 + 3072**2  # the time is embedded in float32
    borrowed = 2 * (2 * (matrices - time) - first) + 4 * (2 * time - sinusoids)
    assert stage_work(params, 1).gathered == borrowed + 4 * (matrices + others)
    assert stage_work(params, 1).gathered_at_update == 4 * (others + 2 * 2)
    recomputed = config.load("5B", {"stages.1.model.recompute_every_nth_block": 2})
    assert stage_work(recomputed, 1).gathered == stage_work(params, 1).gathered


@pytest.mark.parametrize(("size", "stage"), STAGES)
def test_arithmetic_is_that_of_the_operators(scales, size, stage):
    params, work = scales[size], stage_work(scales[size], stage)
    recipe, lengths = params.recipes[stage], params.text.lengths
    recompute = (recipe.model.recompute_every_nth_block, recipe.model.not_recompute_fa)
    tokens = config.visual_tokens(recipe.dataset.longest, *recipe.dataset.size)
    whole = dit_training(params.dit_config(stage), tokens, lengths, *recompute).total
    own = dit_training(params.dit_config(stage), 0, lengths, *recompute).total
    expected = work.samples * (whole + (work.shards - 1) * own) / work.shards
    assert work.products + work.attention == pytest.approx(expected)


def test_attention_that_is_kept_is_not_computed_again(scales):
    kept = stage_work(scales["1B"], 3)
    again = stage_work(config.load("1B", {"stages.3.model.not_recompute_fa": False}), 3)
    assert again.products == kept.products
    assert again.attention == pytest.approx(kept.attention * 4.5 / 3.5)  # forward 1, backward 2.5, forward again 1


# ---- whatever the numbers


@pytest.mark.parametrize("speed", (SHOWN, HIDDEN))
@pytest.mark.parametrize(("size", "stage"), STAGES)
def test_more_cards_are_never_slower_a_sample(scales, size, stage, speed):
    works = [cards_work(scales[size], stage, cards) for cards in (8, 16, 64, 512, 4096)]
    seconds = [update_seconds(work, CARD, speed) / work.samples_an_update for work in works]
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("speed", (SHOWN, HIDDEN))
@pytest.mark.parametrize("size", ("1B", "5B", "30B"))
def test_time_grows_with_tokens(scales, size, speed):
    clips = [Bucket(frames, *pixels) for pixels in ((256, 448), (576, 1024)) for frames in (64, 128, 256)]
    seconds = [micro_batch_seconds(stage_work(scales[size], 3, clip), CARD, speed) for clip in clips]
    assert seconds == sorted(seconds)
    assert len(set(seconds)) == len(seconds)


@pytest.mark.parametrize("stage", (1, 2, 3))
@pytest.mark.parametrize("zero_stage", range(4))
def test_one_card_exchanges_nothing(stage, zero_stage):
    params = config.load("1B", {"train.settings.zero_stage": zero_stage})
    assert exchanging_seconds(cards_work(params, stage, 1), CARD) == 0


@pytest.mark.parametrize(("size", "stage"), STAGES)
def test_a_slower_card_takes_longer(scales, size, stage):
    work = stage_work(scales[size], stage)
    names = ("ascend-910b", "ascend-910b-313t", "ascend-910b-280t")
    seconds = [micro_batch_seconds(work, find_card(name), SHOWN) for name in names]
    assert seconds == sorted(seconds)


# ---- fitted numbers


@pytest.mark.parametrize("known", (SHOWN, HIDDEN, Speed(0.62, 0.01, 0.0), Speed(0.1, 0.3, 1.0)))
def test_known_numbers_are_found_again(known):
    cases = made_by(known)
    found = fit(cases, CARD)
    assert (found.attention, found.overhead) == pytest.approx((known.attention, known.overhead), rel=1e-4)
    assert found.hidden == known.hidden


def test_an_odd_row_hardly_moves_the_others():
    cases = made_by(SHOWN)
    odd = replace(cases[7], measured=replace(cases[7].measured, seconds=2 * cases[7].measured.seconds))
    found = fit([*cases[:7], odd, cases[8]], CARD)
    assert found.attention == pytest.approx(SHOWN.attention, rel=0.03)
    assert found.overhead == pytest.approx(SHOWN.overhead, rel=0.05)


def test_rows_of_the_model_itself_have_no_errors():
    rows = [case.measured for case in made_by(HIDDEN)]
    (found,) = validate(rows, CARD)
    assert not any(row.impossible for row in found.rows)
    assert max(found.fitted.largest, found.left_out.largest, found.held_out.largest) < 1e-3
    assert found.speed.interval(10) == pytest.approx((10, 10), rel=1e-3)


def made_by(speed):
    """The published rows, with the seconds that these numbers give."""
    cases = published_cases(measured(TIMINGS))["MindSpore 2.3.1"]
    return [
        replace(case, measured=replace(case.measured, seconds=micro_batch_seconds(case.longest, CARD, speed)))
        for case in cases
    ]


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match=f"3 rows are too few to fit three numbers to: give {FEWEST} or more"):
        fit(made_by(SHOWN)[:3], CARD)


# ---- the published tables


def test_every_row_is_there(validations):
    rows = [row for found in validations.values() for row in found.rows]
    assert [(row.measured.size, row.measured.stage) for row in rows] == [(row.size, row.stage) for row in TIMINGS] * 2
    assert [row.measured.seconds for row in rows[:9]] == [row.mindspore_2_3_1 for row in TIMINGS]
    assert [row.measured.seconds for row in rows[9:]] == [row.mindspore_2_7_0 for row in TIMINGS]
    assert len(rows) == 18


def test_rows_that_cannot_be_are_named(validations):
    reasons = {
        (row.measured.size, row.measured.stage, software): row.impossible
        for software, found in validations.items()
        for row in found.rows
        if row.impossible
    }
    assert set(reasons) == {("5B", 2, "MindSpore 2.7.0"), ("1B", 2, "MindSpore 2.7.0")}
    assert "TFLOP/s, and the card has 376" in reasons["5B", 2, "MindSpore 2.7.0"]
    assert "at the rates of stage 3 it takes 0.87 s or more, not 0.56" in reasons["1B", 2, "MindSpore 2.7.0"]


def test_they_count_nowhere_and_are_shown_all_the_same(validations):
    found = validations["MindSpore 2.7.0"]
    assert len(found.possible) == 7
    for row in found.rows:
        if row.impossible:
            assert not row.fitted
            assert row.by_all == row.by_others > row.measured.seconds
            assert row.mixed < row.by_all


def test_seconds_are_of_a_micro_step():
    # were they of an update, its five micro-batches would take more than the card has
    row = Measured("5B", 3, "MindSpore 2.7.0", 66.2)
    (case,) = published_cases([row])[row.software]
    assert impossible(case, [], CARD) == ""
    a_fifth = replace(case, measured=replace(row, seconds=66.2 / case.longest.micro_batches))
    assert "TFLOP/s, and the card has 376" in impossible(a_fifth, [], CARD)


def test_half_of_the_rows_is_a_chequerboard():
    for cases in published_cases(measured(TIMINGS)).values():
        assert [case.in_half for case in cases] == [True, False] * 4 + [True]


def test_how_far_the_published_rows_are(validations):
    old, new = validations.values()
    assert new.fitted.largest < 0.1
    assert new.left_out.mean < 0.1
    far = [(row.measured.size, row.measured.stage) for row in old.possible if abs(row.error(row.by_others)) > 0.1]
    # The second took longer than anything here explains. The first is off by 11 %: rows of ZeRO 3 tell how fast cards
    # exchange, and are taken to gather twice where blocks are recomputed, as here; what the release did is not told.
    assert far == [("1B", 1), ("1B", 2)]


def test_the_interval_holds_the_rows_that_were_left_out(validations):
    for found in validations.values():
        low, high = found.speed.interval(1.0)
        assert low <= 1 <= high
        assert found.coverage == (len(found.possible) - 1) / (len(found.possible) + 1)
        for row in found.possible:
            assert low <= row.measured.seconds / row.by_others <= high


def test_every_way_to_fit_half_of_the_rows():
    cases = published_cases(measured(TIMINGS))["MindSpore 2.7.0"]
    errors = split_errors(cases, CARD)
    assert len(errors) == 35  # four of seven
    assert sorted(errors)[17] < 0.15
