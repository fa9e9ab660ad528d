import pytest

from moviegen import config, plan
from moviegen.report.pages import cost, cost_scaling
from tests.report.making import cells, svg, words


@pytest.fixture(scope="module")
def scaled():
    return cost.scaling([plan.validate_newest(plan.find_card(plan.PUBLISHED_CARD))])


def test_strong_scaling_has_the_fastest_division_of_each_number_of_cards(scaled):
    assert [{point.shards for point in points} for points in scaled.strong] == [{8}, {16}, {24}, {48}]
    rows = cells(cost.scaling_rows(scaled))
    assert {"8", "48", "64", "3,072"} <= set(rows["cards"])
    for _, row in rows.iterrows():
        cards = int(row["cards"].replace(",", ""))
        seconds = [point.seconds for points in scaled.strong for point in points if point.cards == cards]
        assert float(row["s an update"].replace(",", "")) == pytest.approx(min(seconds), rel=5e-3)


def test_weak_scaling_has_the_division_that_trains_on_most_videos(scaled):
    rows = cells(cost.weak_rows(scaled))
    for _, row in rows.iterrows():
        cards, videos = (int(row[name].replace(",", "")) for name in ("cards", "videos"))
        assert videos == cards // int(row["share a video"])
        rates = [point.samples / point.seconds for points in scaled.weak for point in points if point.cards == cards]
        assert videos / float(row["s an update"]) == pytest.approx(max(rates), rel=6e-3)


def test_rows_say_what_fits(scaled):
    limit = 59 * 2**30  # launch.max_device_memory of the recipe
    fits = {point.cards: point.memory.total <= limit for points in scaled.strong[:1] for point in points}
    rows = cells(cost.scaling_rows(scaled))
    for _, row in rows[rows["share a video"] == "8"].iterrows():
        assert (row["fits"] == "yes") == fits[int(row["cards"].replace(",", ""))]
        assert (float(row["GiB a card"]) <= 59) == (row["fits"] == "yes")


@pytest.mark.parametrize("show", [cost.strong_curves, cost.weak_curves])
def test_curves_name_every_division(scaled, show):
    drawing = svg(show(scaled))
    for shards in (8, 16, 24, 48):
        assert f"<!-- {shards} share a video -->" in drawing


@pytest.mark.parametrize("shards", [2, 8, 48])
def test_where_gathered_tokens_are_less_than_swaps_and_gathered_weights(shards):
    """4 N D (P-1)/P against 4 N D (P-1)/P^2 and 16 D^2, as 30B's F is 8/3 D."""
    dit = config.load("30B").dit_config(3)
    width = dit.width
    assert 3 * dit.ffn_width == 8 * width
    even = 4 * width * (shards / (shards - 1)) ** 2
    assert cost_scaling.break_even(dit, shards) == pytest.approx(even, rel=1e-4)


def test_the_verdict_on_sequence_parallelism_follows_from_the_numbers():
    said = words(cost.token_sharing_verdict())
    assert "1B at 16 cards, 5B at 24 cards and 30B at 48 cards" in said
    assert "stage 2's longest videos have 14,336: there gathering would send less" in said  # below 4 D, 24,576
    assert "stage 3's longest videos have 73,728: there gathering would send less with 2 cards" in said  # below 16 D


def test_more_cards_than_heads_cannot_swap():
    rows = cells(cost.token_sharing()).set_index("cards that share a video")
    assert rows.loc["96", "Ulysses"] == "not possible"
    assert rows.loc["48", "heads a card"] == "1"
    sent = 4 * 73_728 * 6144 / 8 * 7 / 8 * 2  # bytes
    assert rows.loc["8", "Ulysses"] == f"{sent / 1e6:.0f} MB"
