import pytest

from moviegen import config
from moviegen.report import prospect
from tests.report.making import cells, finished, section


def test_where_the_cards_are_missing_each_program_says_so(monkeypatch):
    monkeypatch.setattr("moviegen.device.accelerators", lambda: 0)
    rows = cells(prospect.table(config.load("5B"), section("sampling")))
    assert {"stage3", "sample"} <= set(rows["program"])
    assert set(rows["time here"]) == {"not run here: it needs 8 cards"}


@pytest.mark.parametrize("program", ["text", "stage1"])
def test_what_was_not_measured_takes_nobody_knows_how_long_and_what_is_there_no_time(params, program):
    finished(params, program)
    rows = cells(prospect.table(params, section("training-1"))).set_index("program")["time here"]
    assert rows[program] == "-"
    assert set(rows.drop(program)) == {"unknown"}
