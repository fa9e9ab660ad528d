import re

import pytest

from moviegen import config, plan
from moviegen.plan.dit_memory import fullest
from moviegen.report.pages import cost, cost_questions

CARD = plan.find_card(plan.PUBLISHED_CARD)


@pytest.fixture(scope="module")
def newest():
    return plan.validate_newest(CARD)


def test_all_are_folded_with_what_they_were_computed_of(newest):
    shown = cost.questions([newest]).data
    assert shown.count("<details>") == shown.count("<summary>") == shown.count("<code>") == 6
    assert "<details open" not in shown


def test_the_number_of_cards_is_the_first_of_those_that_fit():
    asked = cost_questions.cards_that_fit()
    counts = [8 * 2**power for power in range(10)]
    params = {count: plan.with_cards(config.load("30B"), count, CARD) for count in counts}
    fitting = [count for count in counts if fullest(params[count], 3)[1].total <= 59 * 2**30]
    assert asked.answer.startswith(f"{min(fitting):,}." if fitting else "None, up to 4,096.")


def test_where_no_number_of_cards_suffices_it_says_so(monkeypatch):
    monkeypatch.setattr(cost_questions, "room", lambda params: 2**30)
    assert cost_questions.cards_that_fit().answer.startswith("None, up to 4,096.")


def test_attention_is_most_of_the_largest_videos_step(newest):
    """Of 73,728 visual and 896 text tokens: 4 D N (N + M) forward, 3.5 or 4.5 times, against the linear layers."""
    shares = [float(share) for share in re.findall(r"([\d.]+) %", cost_questions.attention_share(newest.speed).answer)]
    width, hidden, tokens, text = 3072, 8192, 73_728, 896
    attention = 4.5 * 4 * width * tokens * (tokens + text)
    linear = 4 * 2 * (6 * tokens * width**2 + 2 * text * width**2 + 3 * tokens * width * hidden)
    assert shares[0] == pytest.approx(100 * attention / (attention + linear), abs=0.5)
    assert shares[2] == pytest.approx(100 * newest.speed.attention, abs=0.06)


def test_a_hosts_swaps_are_counted_and_timed():
    answer = cost_questions.swaps_of_a_host().answer
    sent = 2 * 4 * 73_728 * 6144 / 8 * 7 / 8
    assert f"Each card sends {sent / 1e6:.0f} MB, all of them {8 * sent / 1e9:.2f} GB" in answer


def test_a_whole_state_is_larger_than_a_card():
    answer = cost_questions.state_without_zero().answer
    dit = config.load("5B").dit_config(3)
    weights = plan.parameter_count(dit) + plan.position_count(dit)
    assert answer.startswith(
        f"5B's state: {16 * weights / 2**30:.1f} GiB against 59.0 GiB."
    )  # weight, sum, two moments


def test_resolution_costs_attention_the_square(newest):
    answer = cost_questions.resolution(newest.speed).answer
    assert "5.14 times the tokens" in answer  # 576 x 1024 of 256 x 448 pixels
    times = float(answer.split()[0])
    assert 5.14 < times < 5.14**2


def test_no_linear_layer_waits_for_memory():
    assert cost_questions.smallest_bound_by_arithmetic().answer.startswith("No: ascend-910b needs 235 FLOPs a byte")
