"""What is foretold of each of a few thousand recipes: the table behind the cost page's sliders.

Every entry is one published size on so many cards with one clip a micro-batch for each group that shares a video, by
the recipe of its stage 3 in all else; `entry` is the plan, asked once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from moviegen.config import SIZES, Bucket, Params, load, merge
from moviegen.plan.cards import Card
from moviegen.plan.dit_memory import training_memory
from moviegen.plan.memory import Memory
from moviegen.plan.scaling import with_cards
from moviegen.plan.time import Speed, stage_work, update_seconds

STAGE = 3  # whose position tables have room for every clip below
RECOMPUTE = {
    "nothing": {"recompute_every_nth_block": 0, "not_recompute_fa": False},
    "all but attention": {"recompute_every_nth_block": 1, "not_recompute_fa": True},
    "every block": {"recompute_every_nth_block": 1, "not_recompute_fa": False},
}


SIZES_SHOWN = ("1B", "5B", "30B")
CARDS = (8, 16, 64, 256, 1024, 4096)
ZERO_STAGES = (0, 1, 2, 3)
SHARDS = (1, 2, 4, 8, 16)
PIXELS = ((256, 448), (432, 768), (576, 1024))
FRAMES = (1, 64, 128, 256)
AXES: tuple[tuple[Any, ...], ...] = (SIZES_SHOWN, CARDS, ZERO_STAGES, SHARDS, tuple(RECOMPUTE), PIXELS, FRAMES)


class Choice(NamedTuple):
    """Where each slider stands, in the order of AXES."""

    size: str
    cards: int
    zero_stage: int
    shards: int
    recompute: str
    pixels: tuple[int, int]
    frames: int


@dataclass(frozen=True)
class Entry:
    """What is foretold.

    Attributes:
        memory: of a card at its fullest moment.
        flops: of a card in a micro-batch.
        seconds: of an update.
        micro_batches: of an update.
        clips: of an update, of all cards.
    """

    memory: Memory
    flops: float
    seconds: float
    micro_batches: int
    clips: float


def choices() -> Iterator[Choice]:
    """All of them, the last field changing fastest."""
    return (Choice(*values) for values in itertools.product(*AXES))


def is_possible(choice: Choice) -> bool:
    """Whether so many cards can share a video: they divide the heads, and are no more than there are."""
    return SIZES[choice.size].num_heads % choice.shards == 0 and choice.cards % choice.shards == 0


def chosen(base: Params, choice: Choice) -> Params:
    """A size's parameters on the cards of a choice (`with_cards`), with the rest of it laid over its stage 3."""
    changes = {
        "model": RECOMPUTE[choice.recompute],
        "dataloader": {"batch_size": {"image_batch_size": 1, "video_batch_size": 1}},
        "train": {
            "settings": {"zero_stage": choice.zero_stage},
            "sequence_parallel": {"shards": choice.shards},
        },
    }
    return Params.model_validate(merge(base.model_dump(), {"stages": {STAGE: changes}}))


def entry(params: Params, clip: Bucket, card: Card, speed: Speed) -> Entry:
    """What the plan says of `chosen` parameters on clips of one shape."""
    work = stage_work(params, STAGE, clip)
    return Entry(
        memory=training_memory(params, STAGE, clip),
        flops=work.products + work.attention,
        seconds=update_seconds(work, card, speed),
        micro_batches=work.micro_batches,
        clips=work.samples_an_update,
    )


def entries(card: Card, speed: Speed) -> Iterator[Entry | None]:
    """Of each of `choices`, in their order; None of those that are not possible."""
    sizes = {size: load(size) for size in SIZES_SHOWN}
    wider = {(size, cards): with_cards(sizes[size], cards, card) for size in SIZES_SHOWN for cards in CARDS}
    for recipe in itertools.product(*AXES[:-2]):
        first = Choice(*(*recipe, PIXELS[0], FRAMES[0]))
        params = chosen(wider[first.size, first.cards], first) if is_possible(first) else None
        for pixels, frames in itertools.product(PIXELS, FRAMES):
            yield entry(params, Bucket(frames, *pixels), card, speed) if params else None
