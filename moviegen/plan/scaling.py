"""A stage on other numbers of cards, on paper: how long an update takes, and what a card holds and exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moviegen.config import ConfigError, Params, merge
from moviegen.plan.cards import Card
from moviegen.plan.dit_memory import training_memory
from moviegen.plan.memory import Memory, Types, state_bytes
from moviegen.plan.time import Speed, computing_seconds, exchanging_seconds, stage_work, update_seconds

PORT = 8200  # several hosts must agree on one; of a plan nobody listens there


@dataclass(frozen=True)
class Point:
    """One update on so many cards.

    Attributes:
        samples: of the update, of all cards.
        shards: cards that share the tokens of a sample.
        micro_batches: of the update, one sample each on every group of shards.
        seconds: of the update; `computed` and `exchanged` are what it is made of, where nothing hides behind the other.
        state_bytes: weights, gradient sums and optimizer on a card.
        memory: of a card at its fullest moment.
        gathered: bytes of the tensors that pass whole through gathers and scatters over all cards, in the update.
        swapped: bytes that a card sends in all-to-alls of its shard group, in the update.
    """

    cards: int
    samples: int
    shards: int
    micro_batches: int
    seconds: float
    computed: float
    exchanged: float
    state_bytes: int
    memory: Memory
    gathered: float
    swapped: float


def with_cards(params: Params, cards: int, card: Card) -> Params:
    """The same parameters on so many cards of whole hosts.

    Raises:
        ConfigError: they are none, or make no whole hosts, or a stage's shards do not divide them.
    """
    whole = card.cards_a_host
    if cards < 1:
        raise ConfigError(f"--cards {cards}: a plan needs 1 or more")
    if cards > whole and cards % whole:
        fewer = cards // whole * whole
        raise ConfigError(f"--cards {cards} is no whole number of hosts of {whole}: {fewer} or {fewer + whole}")
    for stage, recipe in params.recipes.items():
        shards = recipe.train.sequence_parallel.shards
        if cards % shards:
            raise ConfigError(
                f"--cards {cards} cannot be divided into groups of stages.{stage}.train.sequence_parallel.shards "
                f"{shards}: give a multiple, such as {-(-cards // shards) * shards}"
            )
    launch = {"worker_num": cards, "local_worker_num": min(cards, whole)}
    if cards > whole and not params.launch.master_port:
        launch["master_port"] = PORT
    return Params.model_validate(merge(params.model_dump(), {"launch": launch}))


def strong_scaling(
    params: Params, stage: int, card: Card, speed: Speed, samples: int, shards: int, counts: Iterable[int]
) -> list[Point]:
    """One update of so many videos on ever more cards; left out are counts that cannot share them evenly.

    Args:
        samples: videos of an update, of all cards.
        shards: cards that share the tokens of each.
        counts: of cards.
    """
    points = []
    for cards in counts:
        groups, left = divmod(cards, shards)
        if left or not groups or samples % groups:
            continue
        points.append(_point(params, stage, card, speed, cards, shards, samples // groups))
    return points


def weak_scaling(
    params: Params, stage: int, card: Card, speed: Speed, micro_batches: int, shards: int, counts: Iterable[int]
) -> list[Point]:
    """Updates whose videos grow with the cards: so many micro-batches of one video on every group of shards.

    Args:
        counts: of cards; left out are those that the shards do not divide.
    """
    return [_point(params, stage, card, speed, cards, shards, micro_batches) for cards in counts if cards % shards == 0]


def _point(params: Params, stage: int, card: Card, speed: Speed, cards: int, shards: int, micro_batches: int) -> Point:
    changes = {
        "dataloader": {"batch_size": {"video_batch_size": 1}},
        "train": {
            "sequence_parallel": {"shards": shards},
            "settings": {"gradient_accumulation_steps": micro_batches},
        },
    }
    wider = with_cards(params, cards, card).model_dump()
    scaled = Params.model_validate(merge(wider, {"stages": {stage: changes}}))
    recipe, config, work = scaled.recipes[stage], scaled.dit_config(stage), stage_work(scaled, stage)
    clip, settings = recipe.dataset.longest_clip, recipe.train.settings
    return Point(
        cards=cards,
        samples=cards // shards * micro_batches,
        shards=shards,
        micro_batches=micro_batches,
        seconds=update_seconds(work, card, speed),
        computed=micro_batches * computing_seconds(work, card, speed.attention),
        exchanged=exchanging_seconds(work, card),
        state_bytes=state_bytes(
            config, cards, settings.zero_stage, micro_batches, Types.of(settings, scaled.launch)
        ).total,
        memory=training_memory(scaled, stage, clip),
        gathered=micro_batches * work.gathered + work.gathered_at_update,
        swapped=micro_batches * work.swapped,
    )
