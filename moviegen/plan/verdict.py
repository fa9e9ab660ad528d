"""Whether a recipe fits its cards; where it does not, what is too large there, and the nearest recipe that fits."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moviegen.config import TAE_PHASES, TEMPORAL_COMPRESSION, Bucket, Params, merge
from moviegen.plan.cards import Card, quantity
from moviegen.plan.memory import STATE, Memory
from moviegen.plan.sampling import report_memory, sampling_share
from moviegen.plan.scaling import with_cards
from moviegen.plan.tae_memory import tae_training_memory
from moviegen.plan.variants import (
    RECOMPUTATIONS,
    Variant,
    batchings,
    divisors,
    largest_memory,
    seen,
    shard_counts,
    smallest_variants,
    variant_of,
    with_variant,
)

MINDSPORE_SIZES = {"GB": 2.0**30}  # of 58GB MindSpore takes 59392M, says the page of its dry run; see `dry_run`
MOST_CARDS = 4096
GIB = 2.0**30
Way = tuple[str, Mapping[str, Any]]  # a change in words, and the values that it sets


@dataclass(frozen=True)
class Verdict:
    """Whether a card holds what a recipe asks of it.

    Attributes:
        memory: at the fullest moment.
        available: bytes of the card that tensors may take; see `available`.
        nearest: what would fit, in words; empty where the recipe does, or where nothing does.
    """

    memory: Memory
    available: float
    nearest: str = ""

    @property
    def free(self) -> float:
        """Bytes that are left; below 0: that are missing."""
        return self.available - self.memory.total

    @property
    def fits(self) -> bool:
        """Whether they suffice."""
        return self.free >= 0

    @property
    def culprit(self) -> str:
        """The part that makes it so: the largest beyond the state, or of the state where that alone is too large."""
        parts = self.memory.parts
        state = {part: size for part, size in parts.items() if part in STATE}
        others = {part: size for part, size in parts.items() if part not in STATE}
        largest = state if sum(state.values()) > self.available or not others else others
        return max(largest, key=largest.__getitem__)

    @property
    def reason(self) -> str:
        """By how much it does not fit, and at which part."""
        return f"{gib(-self.free)} over at the {self.culprit}"

    def __str__(self) -> str:
        if self.fits:
            return f"fits, {gib(self.free)} free"
        return f"does not fit: {self.reason}; {self.nearest}" if self.nearest else f"does not fit: {self.reason}"


def gib(size: float) -> str:
    """Bytes in words: `11.2 GiB`."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / GIB:.1g} GiB"


def available(params: Params, card: Card) -> float:
    """Bytes of a card that a recipe's tensors may take: `launch.max_device_memory`, and no more than there are.

    What that leaves is for all that MindSpore's pool does not hold: CANN itself, and the communication library's
    buffers. MindSpore takes the smaller of the two as well (`mindspore.runtime.set_memory`).

    Raises:
        ConfigError: the parameter is no size as MindSpore reads it, such as 59GB.
    """
    size = params.launch.max_device_memory
    asked = quantity(size, MINDSPORE_SIZES, "launch.max_device_memory")
    return min(limit for limit in (asked, card.memory) if limit is not None)


def stage_verdict(params: Params, stage: int, card: Card) -> tuple[Bucket, Verdict]:
    """On a stage's training, of the clips that need most."""
    limit = available(params, card)
    clip, memory = largest_memory(params, stage)
    nearest = "" if memory.total <= limit else _nearest_stage(params, stage, card, limit)
    return clip, Verdict(memory, limit, nearest)


def tae_verdict(params: Params, phase: str, card: Card) -> Verdict:
    """On a phase of the autoencoder's training: `image`, `opl-off`, `opl-on` or `mixkit`."""
    group = TAE_PHASES[phase]
    settings = getattr(params.tae, group)
    ways: list[Way] = [("recompute every block", {"recompute_every_nth_block": 1})]
    if settings.recompute_every_nth_block == 1:
        ways = []
    memory = functools.partial(tae_training_memory, phase=phase)
    return _clip_verdict(params, ("tae", group), settings, card, memory, [ways])


def sampling_verdict(params: Params, card: Card) -> Verdict:
    """On sampling the report's clips."""
    return _clip_verdict(params, ("sample",), params.sample, card, report_memory, sampling_ways(params))


def sampling_ways(params: Params) -> list[list[Way]]:
    """What may be changed of how the cards share what is sampled, by kind."""
    share, heads = sampling_share(params, 3), params.dit_config(3).num_heads
    counts = [count for count in divisors(math.gcd(share.cards, heads)) if count > share.shards]
    zero: list[Way] = [("ZeRO 3", {"zero_stage": 3})] if share.parts < share.cards else []
    return [[(f"shards {share.shards} -> {count}", {"shards": count}) for count in counts], zero]


def nearest_ways(kinds: Sequence[Sequence[Way]], fits: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """What to change so that it fits, in words: as few kinds of values as can be.

    Where one kind is enough, every kind that is, each with its first way that fits; else the first combination.

    Args:
        kinds: for each kind of value the ways to change it, nearest first.
        fits: whether it would with such values set.
    """
    alone = [next((words for words, values in ways if fits(values)), "") for ways in kinds]
    if any(alone):
        return [words for words in alone if words]
    for number in range(2, len(kinds) + 1):
        for some in itertools.combinations(kinds, number):
            for ways in itertools.product(*some):
                if fits(functools.reduce(merge, (values for _, values in ways))):
                    return [" and ".join(words for words, _ in ways)]
    return []


def stage_ways(params: Params, stage: int) -> list[list[Way]]:
    """What may be changed of how a stage is computed, by kind: values are a `Variant`'s."""
    recipe, cards = params.recipes[stage], params.launch_of(stage).worker_num
    current = variant_of(recipe)
    shards = [count for count in shard_counts(recipe, cards) if count > current.shards]
    zero = range(current.zero_stage + 1, 4) if cards > 1 else ()
    recomputed = [
        replace(current, every_nth=every_nth, keeps_attention=keeps)
        for every_nth, keeps in RECOMPUTATIONS
        if every_nth and _recomputes(every_nth, keeps) > _recomputes(current.every_nth, current.keeps_attention)
    ]
    medium = seen(recipe)[-1]
    smaller = [one for one in batchings(recipe, current.shards) if one[medium] < current.batches[medium]]
    return [
        [(f"shards {current.shards} -> {count}", {"shards": count}) for count in shards],
        [(f"ZeRO {number}", {"zero_stage": number}) for number in zero],
        [
            (f"recompute {one.recompute}", {"every_nth": one.every_nth, "keeps_attention": one.keeps_attention})
            for one in recomputed
        ],
        [(f"micro-batch {current.batches[medium]} -> {one[medium]}", {"batches": one}) for one in smaller],
    ]


def card_counts(cards: int, card: Card) -> Iterator[int]:
    """More cards than so many, of whole hosts, each time twice as many."""
    while (cards := 2 * cards) <= MOST_CARDS:
        if cards <= card.cards_a_host or cards % card.cards_a_host == 0:
            yield cards


def _nearest_stage(params: Params, stage: int, card: Card, limit: float) -> str:
    """What of the recipe to change; else with how many cards it can be made to fit."""
    current = variant_of(params.recipes[stage])

    def fits(values: Mapping[str, Any]) -> bool:
        changed = with_variant(params, stage, replace(current, **values))
        return largest_memory(changed, stage)[1].total <= limit

    if ways := nearest_ways(stage_ways(params, stage), fits):
        return f"nearest that fits: {', or '.join(ways)}"
    cards = params.launch_of(stage).worker_num
    if params.recipes[stage].train.worker_num:  # it takes some of the cards that there are
        return f"nothing fits on {cards} cards"
    for more in card_counts(cards, card):
        on_more = with_cards(params, more, card)
        for variant in smallest_variants(on_more, stage):
            if largest_memory(with_variant(on_more, stage, variant), stage)[1].total <= limit:
                return f"nothing fits on {cards} cards; nearest that does: {more} with {_words(variant)}"
    return f"nothing fits on {cards} cards, nor on up to {MOST_CARDS:,}"


def _words(variant: Variant) -> str:
    return (
        f"ZeRO {variant.zero_stage}, shards {variant.shards}, micro-batches of {max(variant.batches[:2])} and "
        f"recompute {variant.recompute}"
    )


def _recomputes(every_nth: int, keeps_attention: bool) -> tuple[float, bool]:
    """To compare how much is recomputed: the share of the blocks, then whether attention is too."""
    return (1 / every_nth if every_nth else 0.0, bool(every_nth) and not keeps_attention)


def _clip_verdict(
    params: Params,
    place: Iterable[str],
    settings: Any,
    card: Card,
    memory_of: Callable[[Params], Memory],
    others: Sequence[Sequence[Way]] = (),
) -> Verdict:
    """On what works on `batch_size` clips of so many `frames`, which stand at a place of the parameters.

    Args:
        others: what else may be changed there, by kind; tried before smaller clips.
    """
    names, limit, memory = tuple(place), available(params, card), memory_of(params)

    def fits(values: Mapping[str, Any]) -> bool:
        nested = functools.reduce(lambda inner, name: {name: inner}, reversed(names), dict(values))
        return memory_of(Params.model_validate(merge(params.model_dump(), nested))).total <= limit

    batches = [count for count in reversed(divisors(settings.batch_size)) if count < settings.batch_size]
    frames = [count for count in range(settings.frames - 1, 0, -1) if count % TEMPORAL_COMPRESSION == 0]
    kinds: list[Sequence[Way]] = [
        *others,
        [(f"batch_size {settings.batch_size} -> {count}", {"batch_size": count}) for count in batches],
        [(f"frames {settings.frames} -> {count}", {"frames": count}) for count in frames],
    ]
    if memory.total <= limit:
        return Verdict(memory, limit)
    ways = nearest_ways(kinds, fits)
    return Verdict(memory, limit, f"nearest that fits: {', or '.join(ways)}" if ways else "nothing near it fits")
