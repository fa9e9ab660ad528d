import pytest

from moviegen.plan.published import TIMINGS
from moviegen.report.pages import cost
from tests.report.making import cells, svg


@pytest.fixture(scope="module")
def traffics():
    return cost.traffics()


def test_every_published_stage_is_there(traffics):
    assert set(traffics) == {(timing.size, timing.stage) for timing in TIMINGS}
    drawing = svg(cost.roofline(traffics))
    for timing in TIMINGS:
        assert f"<!-- {timing.size}, stage {timing.stage} -->" in drawing
    for kind in ("linear layers", "attention", "element by element", "optimizer"):
        assert f"<!-- {kind} -->" in drawing


def test_the_least_time_is_below_what_was_published_but_for_a_row_that_cannot_be(traffics):
    rows = cells(cost.roofline_rows(traffics))
    for _, row in rows.iterrows():
        is_less = float(row["least s a micro-batch"]) < float(row["published"])
        assert is_less == ((row["model"], row["stage"]) != ("5B", "2"))


def test_shares_of_a_stage_are_of_all_of_it(traffics):
    for _, row in cells(cost.roofline_rows(traffics)).iterrows():
        shares = [float(text.split(", ")[2].removesuffix(" %")) for text in row[2:6]]
        assert sum(shares) == pytest.approx(100, abs=0.3)
        assert [text.split(", ")[1] for text in row[2:6]] == ["peak", "peak", "memory", "memory"]
