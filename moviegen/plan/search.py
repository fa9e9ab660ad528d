"""The fastest way to compute a stage that fits its cards, by trying all, and why the others are not taken."""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import SIZES, Bucket, Params
from moviegen.plan.cards import Card
from moviegen.plan.memory import Memory
from moviegen.plan.time import Speed, stage_work, update_seconds
from moviegen.plan.variants import (
    Variant,
    all_variants,
    divisors,
    largest_memory,
    shard_counts,
    variant_of,
    with_variant,
)
from moviegen.plan.verdict import Verdict, available, gib

WORTH_SAYING = 0.05  # % of the seconds
SHOWN = 3  # of those that are faster and do not fit, and of those that fit and are slower


@dataclass(frozen=True)
class Candidate:
    """One way to compute a stage.

    Attributes:
        samples: of an update, of all cards: the stage's longest videos, or images where it has only those.
        seconds: a sample: of an update, divided by them.
        clip: that needs most memory.
        verdict: on it, without a recipe that would fit.
    """

    variant: Variant
    samples: float
    seconds: float
    clip: Bucket
    verdict: Verdict

    @property
    def memory(self) -> Memory:
        """Of a card."""
        return self.verdict.memory


@dataclass(frozen=True)
class Search:
    """What was found on a number of cards.

    Attributes:
        best: the fastest that fits; None: none does.
        too_large: those that would be faster and do not fit, what is over by least first; without a best, all.
        slower: those that fit, the fastest first.
        current: the recipe as it is.
        tried: how many there are.
    """

    best: Candidate | None
    too_large: tuple[Candidate, ...]
    slower: tuple[Candidate, ...]
    current: Candidate
    tried: int

    @property
    def rows(self) -> list[tuple[Candidate, str]]:
        """What is worth a look, the best first, each with why it is taken or not; the recipe as it is among them."""
        shown = [*([self.best] if self.best else []), *self.too_large[:SHOWN], *self.slower[:SHOWN]]
        if self.current.variant not in [one.variant for one in shown]:
            shown.append(self.current)
        return [(one, self._words(one)) for one in shown]

    def _words(self, one: Candidate) -> str:
        words = "the fastest that fits" if one is self.best else self._rejected(one)
        return f"{words}; the recipe as it is" if one.variant == self.current.variant else words

    def _rejected(self, one: Candidate) -> str:
        """Why it is not the best."""
        if not one.verdict.fits or not self.best:
            return one.verdict.reason
        if one.seconds > self.best.seconds:
            longer = 100 * (one.seconds / self.best.seconds - 1)
            return f"{longer:.1f} % slower" if longer >= WORTH_SAYING else "a little slower"
        more = one.memory.total - self.best.memory.total
        return f"as fast, and holds {f'{gib(more)} more' if more else 'as much'}"


def search(params: Params, stage: int, card: Card, speed: Speed) -> Search:
    """Tries every combination of ZeRO stage, shards, recomputation and micro-batch on a stage's cards.

    Of two as fast the one that holds less is taken.

    Args:
        card: whose arithmetic and wires give the seconds, and whose memory the limit.
        speed: how a version of the software uses it.
    """
    limit = available(params, card)
    current = variant_of(params.recipes[stage])
    tried = sorted(
        (_candidate(params, stage, variant, card, speed, limit) for variant in all_variants(params, stage)),
        key=lambda one: (one.seconds, one.memory.total),
    )
    fitting = [one for one in tried if one.verdict.fits]
    best = fitting[0] if fitting else None
    faster = tried[: tried.index(best)] if best else tried
    return Search(
        best=best,
        too_large=tuple(sorted(faster, key=lambda one: one.memory.total)),
        slower=tuple(fitting[1:]),
        current=_candidate(params, stage, current, card, speed, limit),
        tried=len(tried),
    )


def shards_rule(params: Params, stage: int) -> str:
    """Which shards can be and why, and the nearest that cannot."""
    recipe, cards = params.recipes[stage], params.launch_of(stage).worker_num
    heads, can = SIZES[recipe.model.size].num_heads, shard_counts(recipe, cards)
    rule = f"shards divide {heads} heads and {cards} cards: {', '.join(map(str, can))}"
    more = next((count for count in divisors(heads) if count > can[-1]), None)
    return f"{rule}; {more} would need a multiple of {more} cards" if more else rule


def _candidate(params: Params, stage: int, variant: Variant, card: Card, speed: Speed, limit: float) -> Candidate:
    changed = with_variant(params, stage, variant)
    work = stage_work(changed, stage)
    clip, memory = largest_memory(changed, stage)
    seconds = update_seconds(work, card, speed) / work.samples_an_update
    return Candidate(variant, work.samples_an_update, seconds, clip, Verdict(memory, limit))
