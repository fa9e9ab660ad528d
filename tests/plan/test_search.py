"""The fastest recipe that fits, against a loop of the test's own over the same choices."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from moviegen import __main__, config, plan
from moviegen.plan import dit_memory, variants
from moviegen.plan.search import search, shards_rule

GIB = 2**30
CARD = plan.find_card("ascend-910b")
SPEED = plan.Speed(attention=0.3, overhead=0.2, hidden=0.5)
PLACES = {
    "ZeRO": "train.settings.zero_stage",
    "shards": "train.sequence_parallel.shards",
    "every_nth": "model.recompute_every_nth_block",
    "keeps": "model.not_recompute_fa",
    "images": "dataloader.batch_size.image_batch_size",
    "videos": "dataloader.batch_size.video_batch_size",
    "micro_batches": "train.settings.gradient_accumulation_steps",
}


def recipe(scale, stage, cards, limit, **values):
    overrides = {f"stages.{stage}.{PLACES[name]}": value for name, value in values.items()}
    hosts = {"launch.worker_num": cards, "launch.local_worker_num": min(cards, 8), "launch.master_port": 1}
    shared = {"launch.max_device_memory": f"{limit}GB", f"stages.{stage}.dataset.aspect_ratios": []}
    shared |= {f"stages.{one}.train.sequence_parallel.shards": 1 for one in (1, 2, 3) if one != stage}
    return config.load(scale, overrides | hosts | shared)


def cost(params, stage):
    """Seconds a video, and bytes on the clip that needs most."""
    work = plan.stage_work(params, stage)
    videos = params.recipes[stage].dataloader.batch_size.video_batch_size or work.samples
    groups = params.launch.worker_num // params.recipes[stage].train.sequence_parallel.shards
    update = videos * groups * params.recipes[stage].train.settings.gradient_accumulation_steps
    clips = [clip for clip in params.recipes[stage].dataset.buckets if clip.frames > 1]
    needs = [dit_memory.training_memory(params, stage, clip).total for clip in clips]
    return plan.update_seconds(work, CARD, SPEED) / update, max(needs)


@pytest.mark.parametrize(("cards", "limit"), [(16, 80), (16, 130), (8, 59)])
def test_the_best_is_that_of_a_loop_over_all(cards, limit):
    """30B's third stage, of 48 heads, sees a video for eight cards in an update."""
    tried = {}
    for shards in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48):
        if cards % shards:
            continue
        group = max(1, shards // 8)  # videos of a group of shards in an update
        for zero, recompute, videos in itertools.product(range(4), ((0, False), (1, True), (1, False)), (1, 2)):
            if group % videos == 0:
                key = (zero, shards, *recompute, videos, group // videos)
                names = ("ZeRO", "shards", "every_nth", "keeps", "videos", "micro_batches")
                tried[key] = cost(recipe("30B", 3, cards, limit, **dict(zip(names, key, strict=True))), 3)
    fitting = [seconds for seconds, size in tried.values() if size <= limit * GIB]
    found = search(recipe("30B", 3, cards, limit), 3, replace(CARD, memory=1024 * GIB), SPEED)
    assert found.tried == len(tried)
    assert bool(fitting) == (found.best is not None)
    if found.best:
        one = found.best.variant
        key = (one.zero_stage, one.shards, one.every_nth, one.keeps_attention, *one.batches[1:])
        assert (found.best.seconds, found.best.memory.total) == pytest.approx(tried[key])
        assert found.best.seconds == pytest.approx(min(fitting))
        assert found.best.memory.total <= limit * GIB
    assert found.current.seconds == pytest.approx(tried[3, 8, 1, False, 1, 1][0])


def test_what_is_not_taken_says_why():
    found = search(recipe("5B", 3, 8, 59), 3, CARD, SPEED)
    assert found.best
    for one, words in found.rows:
        if one is found.best:
            assert words.startswith("the fastest that fits")
        elif one.memory.total > 59 * GIB:
            assert words.startswith(f"{one.memory.total / GIB - 59:.1f} GiB over at the ")
            assert one.memory.parts[words.split(" over at the ")[1].split(";")[0]] > 0
        else:
            slower = 100 * (one.seconds / found.best.seconds - 1)
            assert slower >= 0
            assert words.startswith("a little slower" if f"{slower:.1f}" == "0.0" else f"{slower:.1f} % slower")
    assert [words.endswith("the recipe as it is") for _, words in found.rows].count(True) == 1
    assert all(one.seconds <= found.best.seconds and not one.verdict.fits for one in found.too_large)
    assert all(one.seconds >= found.best.seconds and one.verdict.fits for one in found.slower)


def test_where_nothing_fits_those_that_are_over_by_least_are_shown():
    found = search(recipe("30B", 3, 8, 8), 3, CARD, SPEED)
    assert found.best is None
    sizes = [one.memory.total for one in found.too_large]
    assert sizes == sorted(sizes)
    assert sizes[0] > 8 * GIB
    assert not found.slower
    assert all(" GiB over at the " in words for _, words in found.rows)


@pytest.mark.parametrize(("scale", "stage"), [("1B", 1), ("5B", 2), ("5B", 3), ("30B", 3), ("tiny", 3)])
@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_an_update_sees_as_many_samples_where_it_can(scale, stage, shards):
    one = config.load(scale).recipes[stage]
    batch, settings = one.dataloader.batch_size, one.train.settings
    before = settings.gradient_accumulation_steps / one.train.sequence_parallel.shards
    found = variants.batchings(one, shards)
    media = {"images": batch.image_batch_size if one.sees_images else 0,
             "videos": batch.video_batch_size if one.dataset.longest > 1 else 0}  # fmt: skip
    wanted = {name: size * before * shards for name, size in media.items() if size}
    if all(samples == int(samples) for samples in wanted.values()):
        assert [each.micro_batches for each in found] == [
            count for count in range(1, 1001) if all(samples % count == 0 for samples in wanted.values())
        ]
        for each in found:
            assert {name: getattr(each, name) * each.micro_batches for name in wanted} == wanted
    else:
        (each,) = found
        assert each.micro_batches == 1
        assert math.gcd(*(getattr(each, name) for name in wanted)) == 1


def test_a_variant_is_the_recipe_that_it_describes():
    params = config.load("5B")
    for stage, one in params.recipes.items():
        same = variants.with_variant(params, stage, variants.variant_of(one))
        assert same.recipes[stage] == one
        assert same == config.Params.model_validate(same.model_dump())
    other = variants.Variant(1, 2, 2, True, variants.Batches(4, 3, 7))
    changed = variants.with_variant(params, 3, other)
    again = config.Params.model_validate(changed.model_dump())  # from its values alone, nothing remembered
    assert again.recipes == changed.recipes
    assert variants.variant_of(again.recipes[3]) == other
    assert again.recipes[2] == params.recipes[2]


def test_the_rule_for_shards_names_the_nearest_that_breaks_it():
    assert shards_rule(recipe("30B", 3, 64, 59), 3) == (
        "shards divide 48 heads and 64 cards: 1, 2, 4, 8, 16; 24 would need a multiple of 24 cards"
    )
    assert shards_rule(recipe("30B", 3, 48, 59), 3) == (
        "shards divide 48 heads and 48 cards: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"
    )


@pytest.mark.parametrize(
    ("cards", "shards", "use"),
    [(12, 8, "use 8 or 16 workers, or shards 6"), (4, 8, "use 8 workers, or shards 4"),
     (40, 48, "use 48 workers, or shards 8"), (64, 24, "use 48 or 72 workers, or shards 16")],
)  # fmt: skip
def test_shards_that_do_not_divide_the_cards_are_refused_with_those_that_do(cards, shards, use):
    overrides = {"launch.worker_num": cards, "launch.local_worker_num": cards, f"stages.3.{PLACES['shards']}": shards}
    rule = f"worker_num {cards} is not a multiple of train.sequence_parallel.shards {shards}"
    with pytest.raises(config.ConfigError, match=f"{rule}: {use}$"):
        config.load("30B", overrides)
    other = int(use.split("shards ")[1])
    assert 48 % other == cards % other == 0


@pytest.mark.parametrize(("shards", "use"), [(7, "use 6 or 8"), (32, "use 24 or 48"), (96, "use 48")])
def test_shards_that_do_not_divide_the_heads_are_refused_with_those_that_do(shards, use):
    with pytest.raises(config.ConfigError, match=f"shards {shards} does not divide 30B's 48 attention heads: {use}$"):
        config.load("30B", {f"stages.3.{PLACES['shards']}": shards})


def test_the_command_line_prints_what_was_found(capsys):
    words = ["plan", "--config", "5B", "--stage", "3", "--search"]
    assert __main__.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["3"]
    assert found["best"]["fits"]
    assert found["best"]["bytes_a_card"] <= found["best"]["available_bytes"] == 59 * GIB
    assert found["current"]["seconds_a_sample"] >= found["best"]["seconds_a_sample"]
    assert found["current"]["samples_an_update"] == found["best"]["samples_an_update"]
    assert __main__.main(words) == 0
    heading, columns, first, *others = capsys.readouterr().out.strip().splitlines()
    assert heading.startswith(f"5B, stage 3, on 8 x ascend-910b: {found['tried']} recipes; shards divide 24 heads")
    assert columns.split()[:3] == ["ZeRO", "shards", "recompute"]
    assert first.endswith("the fastest that fits")
    assert len(others) == len(found["shown"]) - 1
    assert sum(line.endswith("the recipe as it is") for line in others) == 1


def test_where_nothing_fits_the_nearest_number_of_cards_is_printed(capsys):
    words = ["--launch.max_device_memory", "1GB", "--stages.3.dataset.aspect_ratios", "[]"]
    assert __main__.main(["plan", "--config", "30B", "--stage", "3", "--search", *words]) == 0
    assert "None fits with as many samples an update; nothing fits on 8 cards, nor on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scale", "stage", "images", "single"),
    [("5B", 1, 10, False), ("5B", 2, 10, False), ("30B", 3, 0, False), ("30B", 1, 2, True)],
)
def test_the_smallest_of_all_is_among_the_few_that_are_tried_on_more_cards(scale, stage, images, single):
    """Two of 30B's images at once hold less than the sums of gradients that one after the other need."""
    params = recipe(scale, stage, 2, 59, images=images, shards=1)

    def size(variant):
        return variants.largest_memory(variants.with_variant(params, stage, variant), stage)[1].total

    least = min(variants.all_variants(params, stage), key=size)
    assert min(map(size, variants.smallest_variants(params, stage))) == size(least)
    if single:
        assert (least.batches.micro_batches, least.batches.images) in ((1, 2), (1, 4))
