import pytest

from moviegen import config, plan, runs
from moviegen.report.pages import parallelism
from tests.report.making import cells, finished, labels, svg, words


@pytest.mark.parametrize(
    "show",
    [
        lambda params: parallelism.state(params, dict.fromkeys((1, 2, 3))),
        lambda params: parallelism.speed(params, dict.fromkeys((1, 2, 3))),
    ],
)
def test_without_a_run_a_table_says_so(params, show):
    assert "not run yet: open 06_training.ipynb, stage 2" in show(params).data
    assert "not run here" in show(config.load("5B")).data


def test_a_run_that_says_no_speed_is_not_one_that_was_not_run(params):
    assert list(cells(parallelism.speed(params, {1: finished(params, "stage1")}))["medium"]) == ["not recorded"]


def test_state_and_speed_stand_beside_the_plan():
    divided = {"settings.zero_stage": 3, "sequence_parallel.shards": 2, "worker_num": None}
    params = config.load("tiny", {f"stages.3.train.{name}": value for name, value in divided.items()})
    run = finished(params, "stage3")
    writer, state = runs.MetricsWriter(run.metrics_path), plan.stage_cost(params, 3).state
    writer.write(kind="state", step=0, **vars(state))
    writer.write(kind="compile", step=1, media="video", shapes=[[4]], seconds=30.0)
    for step, (media, rate) in enumerate((("video", 1), ("video", 1000), ("image", 400), ("video", 3000)), 1):
        writer.write(kind="train", step=step, steps=4, loss=1.0, seconds=1.5, data_wait=0.5, media=media,
                     tokens_per_second=rate, memory_bytes=step * 10**9)  # fmt: skip
    rows = cells(parallelism.state(params, {3: run}))
    assert list(rows[""]) == ["computed", "held by rank 0"]
    assert set(rows["data x shards"]) == {"1 x 2"}
    assert set(rows["ZeRO"]) == {"3"}
    for column, value in zip(("weights", "gradients", "optimizer"), vars(state).values(), strict=True):
        assert set(rows[column]) == {f"{plan.si(value)}B"}
    rows = cells(parallelism.speed(params, {1: None, 3: run}))
    assert list(rows["medium"]) == ["not run yet: open 06_training.ipynb, stage 1", "videos", "images"]
    assert list(rows["tokens/s"])[1:] == ["2,000", "400"]  # without the step that compiled
    assert list(rows["waited, of all time"])[1:] == ["25.0 %", "25.0 %"]
    assert set(rows["peak memory"][1:]) == {"4.00 GB"}
    writer.write(kind="train", step=5, steps=5, loss=1.0, seconds=1.5, data_wait=0.5, media="video",
                 tokens_per_second=1, memory_bytes=9 * 10**9, card_memory_bytes=7 * 10**9)  # fmt: skip
    assert set(cells(parallelism.speed(params, {3: run}))["peak memory"]) == {"7.00 GB"}  # the card's, where it has one


def test_each_medium_has_a_row(params):
    run = finished(params, "stage2")
    writer = runs.MetricsWriter(run.metrics_path)
    for step in range(1, 10):
        writer.write(kind="train", step=step, seconds=1.0, data_wait=0.0, media=("image", "video", "mixed")[step % 3],
                     tokens_per_second=1.0, memory_bytes=1)  # fmt: skip
    assert list(cells(parallelism.speed(params, {2: run}))["medium"]) == ["videos", "images and videos", "images"]


@pytest.mark.parametrize(("shards", "own_tokens", "own_heads"), [(2, 135, 3), (3, 90, 2)])
def test_all_to_alls_are_drawn_with_the_recipes_numbers(shards, own_tokens, own_heads):
    workers = {"launch.worker_num": shards, "launch.local_worker_num": shards, "stages.3.train.worker_num": shards}
    params = config.load("tiny", {**workers, "stages.3.train.sequence_parallel.shards": shards})
    figure = parallelism.exchange(params)
    drawn = labels(figure)
    assert drawn.count(f"a rank: {own_tokens} tokens,") == 2  # before the exchanges, and after them
    assert sum(f"{own_heads} of 6 heads" in text for text in drawn) == 2
    for rank in range(shards):  # each gets a part of every other rank's in each of the all-to-alls, and keeps its own
        assert drawn.count(f"to {rank}") == shards - 1
        assert drawn.count(f"from {rank}") == 2 * (shards - 1)
    assert drawn.count("stays") == 3 * shards
    assert "drawn for" not in figure.data


def test_of_a_recipe_that_divides_no_tokens_the_published_exchange_is_drawn():
    figure = parallelism.exchange(config.load("small"))
    assert "30B&#x27;s stage 3, drawn for 4 ranks instead of 8" in figure.data
    assert {"a rank: 18,432 tokens,", "all 48 heads:"} <= set(labels(figure))


def test_zero_shows_the_state_of_every_published_size():
    drawing = svg(parallelism.zero())
    assert all(f"<!-- {size} -->" in drawing for size in ("1B", "5B", "30B"))


def test_what_a_rank_holds_of_a_weight_is_as_the_recipes_say():
    params = config.load("30B", {"stages.2.train.settings.moment_dtype": "bfloat16"})
    said = words(parallelism.held(params))
    assert (
        "in stage 1 and 3 its gradient's sum 2, AdamW's two moments 4 and 4, and a number of the arithmetic 2" in said
    )
    assert "in stage 2 its gradient's sum 2, AdamW's two moments 2 and 4" in said
