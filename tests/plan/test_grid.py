"""The table behind the sliders: its entries are the plan's, of recipes that are written out here."""

import itertools
import math
import random

import pytest

from moviegen import config, plan
from moviegen.config import Bucket, ConfigError
from moviegen.plan import grid
from moviegen.plan.dit_memory import training_memory

CARD = plan.find_card("ascend-910b")
SPEED = plan.Speed(attention=0.4, overhead=0.2, hidden=1.0)


def written_out(choice):
    """The parameters of a choice, as a reader would write them on the command line."""
    every, keep = {"nothing": (0, False), "all but attention": (1, True), "every block": (1, False)}[choice.recompute]
    changes = {
        "launch.worker_num": choice.cards,
        "launch.local_worker_num": min(8, choice.cards),
        "stages.3.train.settings.zero_stage": choice.zero_stage,
        "stages.3.train.sequence_parallel.shards": choice.shards,
        "stages.3.model.recompute_every_nth_block": every,
        "stages.3.model.not_recompute_fa": keep,
        "stages.3.dataloader.batch_size.image_batch_size": 1,
        "stages.3.dataloader.batch_size.video_batch_size": 1,
    }
    return config.load(choice.size, changes)


def test_there_is_a_choice_for_every_place_of_the_sliders():
    every = list(grid.choices())
    assert len(every) == len(set(every)) == math.prod(map(len, grid.AXES))


def test_entries_are_the_plans():
    some = random.Random(0).sample([choice for choice in grid.choices() if grid.is_possible(choice)], 25)
    for choice in some:
        base = plan.with_cards(config.load(choice.size), choice.cards, CARD)
        params, clip = written_out(choice), Bucket(choice.frames, *choice.pixels)
        found = grid.entry(grid.chosen(base, choice), clip, CARD, SPEED)
        work = plan.stage_work(params, 3, clip)
        assert found.memory == training_memory(params, 3, clip)
        assert found.seconds == plan.update_seconds(work, CARD, SPEED)
        assert found.flops == work.products + work.attention
        assert found.micro_batches == params.recipes[3].train.settings.gradient_accumulation_steps
        assert found.clips == choice.cards / choice.shards * found.micro_batches


def test_entries_come_in_the_order_of_the_choices(monkeypatch):
    """Of a smaller grid, in which shards do not divide the heads now and then."""
    axes = (("5B",), (8, 16), (3,), (1, 16), ("every block",), ((256, 448), (576, 1024)), (1, 64))
    monkeypatch.setattr(grid, "AXES", axes)
    for name, values in zip(("SIZES_SHOWN", "CARDS", "PIXELS", "FRAMES"), (axes[0], axes[1], *axes[5:]), strict=True):
        monkeypatch.setattr(grid, name, values)
    found = dict(zip(grid.choices(), grid.entries(CARD, SPEED), strict=True))
    for choice, entry in found.items():
        if choice.shards == 16:  # 5B has 24 heads
            assert entry is None
            continue
        work = plan.stage_work(written_out(choice), 3, Bucket(choice.frames, *choice.pixels))
        assert entry.seconds == plan.update_seconds(work, CARD, SPEED)


@pytest.mark.parametrize(("size", "cards", "shards"), [*itertools.product(("1B", "5B", "30B"), (8, 16, 64), (8, 16))])
def test_what_is_not_possible_is_refused_elsewhere_too(size, cards, shards):
    choice = grid.Choice(size, cards, 3, shards, "nothing", (256, 448), 1)
    if grid.is_possible(choice):
        assert written_out(choice).recipes[3].train.sequence_parallel.shards == shards
        return
    with pytest.raises(ConfigError, match=r"attention heads|is not a multiple"):
        written_out(choice)
