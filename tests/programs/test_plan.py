"""What `moviegen plan` prints, and refuses."""

import json

import pytest

from moviegen import __main__, config, plan


def printed(capsys, *arguments):
    assert __main__.main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_numbers_have_the_interval_around_seconds(capsys):
    content = json.loads(printed(capsys, "--config", "5B", "--json"))
    assert (content["scale"], content["cards"], content["card"], content["clips"]) == ("5B", 8, "ascend-910b", 100)
    assert [stage["stage"] for stage in content["stages"]] == [1, 2, 3]
    longest = content["stages"][2]["buckets"][-1]
    likely, low, high = longest["seconds_an_update"]
    assert 0 < low < likely < high
    assert likely == pytest.approx(5 * longest["seconds_a_micro_batch"][0])
    for program in content["programs"]:
        assert program["fits"] == (program["memory_bytes"]["all"] <= program["available_bytes"])


def test_the_table_says_on_what_the_seconds_are_and_whether_each_program_fits(capsys):
    text = printed(capsys, "--config", "5B", "--tae.tiling.size", "null")  # whole frames are too large
    assert "5B on 8 x ascend-910b, with 100 clips" in text
    rows = {line.split()[0]: line for line in text.split("GiB/card at the fullest")[0].splitlines() if line}
    fits = plan.stage_verdict(config.load("5B"), 3, plan.find_card("ascend-910b"))[1]
    assert rows["stage3"].endswith(str(fits))
    assert "does not fit" in rows["sample"] and "100,000 x step" in rows["tae-opl-on"]


def test_one_stage_is_shown_with_each_bucket_its_parts_and_its_exchanges(capsys):
    text = printed(capsys, "--config", "30B", "--stage", "3", "--cards", "64")
    assert "30B on 64 x ascend-910b" in text
    for bucket in config.load("30B").recipes[3].dataset.buckets:
        assert (f"\n{bucket} " in text) == (bucket.frames > 1)
    for words in ("gathered weights", "reduce-scatter", "64, job", "8, shard group", "largest single tensor",
                  "of validation", "`storage` is not published", "at a checkpoint", "30,000 updates"):  # fmt: skip
        assert words in text, words


def test_a_recipe_for_a_cpu_has_no_seconds_of_a_card(capsys):
    text = printed(capsys, "--config", "tiny", "--stage", "1")
    assert "tiny on a CPU, with 48 clips" in text and "MiB/rank" in text and "plan --calibrate" in text
    assert "fits" not in text
    row = next(line for line in text.splitlines() if line.startswith("1x48x80"))
    assert row.split()[5:7] == ["-", "-"]


def test_more_clips_take_longer_to_validate_and_more_room(capsys):
    few, many = (
        json.loads(printed(capsys, "--config", "5B", "--stage", "3", "--clips", str(clips), "--json"))["stages"][0]
        for clips in (100, 1000)
    )
    ratio = many["seconds_an_update"]["validation"] / few["seconds_an_update"]["validation"]
    assert ratio == pytest.approx(10, rel=0.05)
    assert many["latents_bytes"] == 10 * few["latents_bytes"]


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
        (("--clips", "0"), ("--clips 0", "1 or more")),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_could(arguments, words, capsys):
    assert __main__.main(["plan", "--config", "30B", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
