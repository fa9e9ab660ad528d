"""How else a stage could be computed, on as many samples an update: ZeRO, shards, recomputation, micro-batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moviegen.config import SIZES, Bucket, Params, Recipe, merge, visual_tokens
from moviegen.plan.dit_memory import training_memory
from moviegen.plan.memory import Memory


class Batches(NamedTuple):
    """What a group of shards sees in an update: samples of a micro-batch, by medium, and how many micro-batches."""

    images: int
    videos: int
    micro_batches: int


@dataclass(frozen=True)
class Variant:
    """One way to compute a stage.

    Attributes:
        zero_stage: 0 to 3.
        shards: cards that share the tokens of a sample.
        every_nth: of the blocks is recomputed; 0: none.
        keeps_attention: those leave attention out.
        batches: of each group of shards.
    """

    zero_stage: int
    shards: int
    every_nth: int
    keeps_attention: bool
    batches: Batches

    @property
    def recompute(self) -> str:
        """Recomputation in words."""
        if not self.every_nth:
            return "off"
        blocks = "on" if self.every_nth == 1 else f"1 block in {self.every_nth}"
        return f"{blocks} without attention" if self.keeps_attention else blocks


RECOMPUTATIONS = ((0, False), (1, True), (1, False))  # every n-th block, keeping attention: from fast to small


def variant_of(recipe: Recipe) -> Variant:
    """The way that a recipe asks for."""
    batch, settings = recipe.dataloader.batch_size, recipe.train.settings
    return Variant(
        zero_stage=settings.zero_stage,
        shards=recipe.train.sequence_parallel.shards,
        every_nth=recipe.model.recompute_every_nth_block,
        keeps_attention=bool(recipe.model.recompute_every_nth_block) and recipe.model.not_recompute_fa,
        batches=Batches(batch.image_batch_size, batch.video_batch_size, settings.gradient_accumulation_steps),
    )


def with_variant(params: Params, stage: int, variant: Variant) -> Params:
    """The same parameters, but for how a stage is computed."""
    images, videos, micro_batches = variant.batches
    changes = {
        "model": {"recompute_every_nth_block": variant.every_nth, "not_recompute_fa": variant.keeps_attention},
        "dataloader": {"batch_size": {"image_batch_size": images, "video_batch_size": videos}},
        "train": {
            "settings": {"zero_stage": variant.zero_stage, "gradient_accumulation_steps": micro_batches},
            "sequence_parallel": {"shards": variant.shards},
        },
    }
    recipe = Recipe.model_validate(merge(params.recipe_values(stage), changes))
    stages = params.stages | {stage: merge(params.stages[stage], changes)}
    # `recipes` is remembered in the copy, so that a search does not check the other stages anew each time
    return params.model_copy(update={"stages": stages, "recipes": params.recipes | {stage: recipe}})


def shard_counts(recipe: Recipe, cards: int) -> list[int]:
    """How many cards can share a sample: as many as divide both the heads and the cards."""
    return divisors(math.gcd(SIZES[recipe.model.size].num_heads, cards))


def batchings(recipe: Recipe, shards: int) -> list[Batches]:
    """Every division of a recipe's update into micro-batches, where other shards share a sample, largest ones first.

    An update sees as many samples of each medium as the recipe's. Where that cannot be, as there are more groups of
    shards than samples, it sees as few as can be.
    """
    current, media = variant_of(recipe), seen(recipe)
    batch = {medium: current.batches[medium] for medium in media}
    wanted = {medium: samples * current.batches.micro_batches * shards for medium, samples in batch.items()}
    if any(samples % current.shards for samples in wanted.values()):
        least = math.gcd(*batch.values())
        return [_batches(current, {medium: samples // least for medium, samples in batch.items()}, 1)]
    wanted = {medium: samples // current.shards for medium, samples in wanted.items()}
    counts = divisors(math.gcd(*wanted.values()))
    return [_batches(current, {medium: n // count for medium, n in wanted.items()}, count) for count in counts]


def all_variants(params: Params, stage: int) -> Iterator[Variant]:
    """Every combination that can be: shards divide heads and cards, and one card divides nothing by ZeRO."""
    recipe, cards = params.recipes[stage], params.launch_of(stage).worker_num
    for shards in shard_counts(recipe, cards):
        yield from _combined(shards, batchings(recipe, shards), cards)


def smallest_variants(params: Params, stage: int) -> Iterator[Variant]:
    """Those of `all_variants` of which one holds least.

    Smaller micro-batches hold less, but that a single one needs no sums of gradients.
    """
    recipe, cards = params.recipes[stage], params.launch_of(stage).worker_num
    for shards in shard_counts(recipe, cards):
        batches = batchings(recipe, shards)
        yield from _combined(shards, [batches[0], batches[-1]], cards)


def seen(recipe: Recipe) -> list[int]:
    """The media that a stage trains on: 0, images; 1, videos."""
    return [medium for medium, is_seen in enumerate((recipe.sees_images, recipe.dataset.longest > 1)) if is_seen]


def largest_clips(recipe: Recipe) -> list[Bucket]:
    """Of each medium that a stage trains on the clip of most tokens."""
    media = seen(recipe)
    clips = [clip for clip in recipe.dataset.buckets if (clip.frames > 1) in media]
    return [max((clip for clip in clips if (clip.frames > 1) == medium), key=_tokens) for medium in media]


def largest_memory(params: Params, stage: int) -> tuple[Bucket, Memory]:
    """As `dit_memory.fullest`, by the largest clips alone: what a card holds grows with their tokens only."""
    needs = [(clip, training_memory(params, stage, clip)) for clip in largest_clips(params.recipes[stage])]
    return max(needs, key=lambda need: need[1].total)


def divisors(number: int) -> list[int]:
    """From 1 to the number itself."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _combined(shards: int, batches: Sequence[Batches], cards: int) -> Iterator[Variant]:
    zero_stages = range(4) if cards > 1 else (0,)
    for batch, zero_stage, recompute in itertools.product(batches, zero_stages, RECOMPUTATIONS):
        yield Variant(zero_stage, shards, *recompute, batch)


def _batches(current: Variant, samples: Mapping[int, int], micro_batches: int) -> Batches:
    """Samples by medium; of what is not seen, whatever the recipe says."""
    images, videos = (samples.get(medium, current.batches[medium]) for medium in (0, 1))
    return Batches(images, videos, micro_batches)


def _tokens(clip: Bucket) -> int:
    return visual_tokens(*clip)
