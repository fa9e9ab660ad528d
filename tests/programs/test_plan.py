"""What `moviegen plan` prints, and refuses."""

import json

import pytest

from moviegen import __main__, config, plan


def printed(capsys, *arguments):
    assert __main__.main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_a_row_for_each_stage_has_the_interval_around_its_seconds(capsys):
    rows = json.loads(printed(capsys, "--config", "5B", "--json"))
    assert [(row["stage"], row["clip"], row["cards"]) for row in rows] == [
        (1, "1x256x448", 8),
        (2, "256x256x448", 8),
        (3, "256x576x1024", 8),
    ]
    for row in rows:
        for name in ("seconds_a_micro_batch", "seconds_an_update"):
            likely, low, high = row[name]
            assert 0 < low < likely < high
    assert rows[2]["seconds_an_update"][0] == pytest.approx(5 * rows[2]["seconds_a_micro_batch"][0])


def test_the_table_says_on_what_the_seconds_are(capsys):
    text = printed(capsys, "--config", "30B", "--stage", "3", "--cards", "64")
    assert "64 x ascend-910b" in text
    head, row, *_ = text.splitlines()
    assert head.split()[:3] == ["scale", "stage", "clip"]
    assert row.split()[:3] == ["30B", "3", "256x576x1024"]


def test_more_cards_hold_less_each_and_are_of_whole_hosts():
    params, card = config.load("30B"), plan.find_card("ascend-910b")
    state = [plan.stage_cost(plan.with_cards(params, cards, card), 3).state.total for cards in (8, 16, 64)]
    assert state == sorted(state, reverse=True)
    launch = plan.with_cards(params, 64, card).launch
    assert (launch.worker_num, launch.local_worker_num) == (64, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cards", "12"), ("12", "8 or 16")),
        (("--cards", "4"), ("4", "shards 8", "8")),
        (("--card", "ascend-901b"), ("ascend-901b", "did you mean 'ascend-910b'", "cards.yaml")),
        (("--cards", "0"), ("0",)),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_could(arguments, words, capsys):
    assert __main__.main(["plan", "--config", "30B", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_all_three_stages_are_printed(capsys):
    lines = printed(capsys, "--config", "tiny").splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["tiny", "1"], ["tiny", "2"], ["tiny", "3"]]
