"""Seconds of a training step: what a card computes, what it exchanges, and what a micro-batch takes whatever its size.

    computed  = products / (MATRICES * peak) + attention / (speed.attention * peak)
    exchanged = bytes / (COLLECTIVES * bandwidth), of each link
    seconds   = the larger + (1 - speed.hidden) * the smaller + speed.overhead * micro-batches

Short steps are mostly overhead, few tokens of large models mostly exchange, long videos mostly attention: that is how
efficiency depends on shape here. The three numbers of a `Speed` are fitted to published tables (`validate`); those in
capitals were measured by others, and are never fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from moviegen.config import Bucket, DiTConfig, Params, Recipe, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.flops import shared_training
from moviegen.plan.memory import FLOAT32
from moviegen.plan.traffic import MICRO_BATCH, UPDATE, recipe_traffic, sent_in_shard_group, through_job

# On an Ascend 910B of 376 TFLOP/s, in bfloat16, CANN 8.0.0.beta1: github.com/gameofdimension/limulidae, README.
MATRICES = 328 / 376  # of the peak: the fastest of many products' sizes
# Eight cards gather 149 GB of a tensor a second, of which 7/8 come over wires of 196 GB/s; an all-reduce agrees: 72 GB.
COLLECTIVES = 149 * 7 / 8 / 196
Number = TypeVar("Number", float, np.ndarray)  # one, or those of a grid


@dataclass(frozen=True)
class Speed:
    """How a version of the software uses a card.

    Attributes:
        attention: share of the peak that attention's products reach.
        overhead: s a micro-batch, whatever its size: launching, waiting, the optimizer.
        hidden: share of the shorter of computing and exchanging that passes while the longer goes on, 0 to 1.
        low, high: measured seconds over predicted ones, the least and the most of rows that were left out of the fit.
    """

    attention: float
    overhead: float
    hidden: float
    low: float = 1.0
    high: float = 1.0

    def interval(self, seconds: float) -> tuple[float, float]:
        """Where a measurement would lie that is no further off than those left out of the fit."""
        return self.low * seconds, self.high * seconds


@dataclass(frozen=True)
class Work:
    """What one card does in a micro-batch, and what it exchanges once an update.

    Attributes:
        dtype: of the arithmetic.
        products: FLOPs of linear layers, those computed again among them.
        attention: FLOPs of attention's products, likewise.
        samples: of a micro-batch, of those cards.
        gathered: bytes of the tensors that pass whole through gathers and scatters over all cards, in a micro-batch; an
            all-reduce is one of each.
        gathered_at_update: the same, once an update.
        swapped: bytes that the card sends to the others of its shard group, in a micro-batch.
        cards: of the job.
        shards: cards that share the tokens of a sample.
        micro_batches: of an update.
    """

    dtype: str
    products: float
    attention: float
    samples: int
    gathered: float = 0.0
    gathered_at_update: float = 0.0
    swapped: float = 0.0
    cards: int = 1
    shards: int = 1
    micro_batches: int = 1

    @property
    def samples_an_update(self) -> float:
        """Of all cards and micro-batches."""
        return self.samples * self.cards / self.shards * self.micro_batches


def stage_work(params: Params, stage: int, clip: Bucket | None = None, weight_bytes: int = FLOAT32) -> Work:
    """`recipe_work` of a stage; without a clip, of its longest videos at its size, or images if it has only those."""
    recipe = params.recipes[stage]
    clip = clip or recipe.dataset.longest_clip
    cards = params.launch_of(stage).worker_num
    return recipe_work(params.dit_config(stage), recipe, params.text.lengths, cards, clip, weight_bytes)


def recipe_work(
    config: DiTConfig,
    recipe: Recipe,
    text_lengths: Sequence[int],
    cards: int,
    clip: Bucket,
    weight_bytes: int = FLOAT32,
) -> Work:
    """What a recipe asks of each of so many cards.

    Args:
        config: the transformer.
        text_lengths: tokens of the prompt in each encoder that is there.
        clip: frames and pixels of a sample; one frame is an image.
        weight_bytes: of a gradient, and of a weight that is no matrix, as they are exchanged: float32 here.
    """
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    samples = batch.samples(clip)
    shards = recipe.train.sequence_parallel.shards
    tokens = -(-visual_tokens(*clip) // shards) * shards
    products, attention = _arithmetic(config, recipe, text_lengths, tokens)
    exchanges = recipe_traffic(config, recipe, cards, clip, dtype, weight_bytes)
    return Work(
        dtype=dtype,
        products=samples * products / shards,
        attention=samples * attention / shards,
        gathered=through_job(exchanges, MICRO_BATCH),
        gathered_at_update=through_job(exchanges, UPDATE),
        swapped=sent_in_shard_group(exchanges),
        cards=cards,
        shards=shards,
        samples=samples,
        micro_batches=settings.gradient_accumulation_steps,
    )


def micro_batch_seconds(work: Work, card: Card, speed: Speed) -> float:
    """Of an update's micro-batches each its share, of what comes once an update too."""
    return update_seconds(work, card, speed) / work.micro_batches


def update_seconds(work: Work, card: Card, speed: Speed) -> float:
    """From one update of the weights to the next."""
    computed = work.micro_batches * computing_seconds(work, card, speed.attention)
    both = overlapped(computed, exchanging_seconds(work, card), speed.hidden)
    return float(both) + work.micro_batches * speed.overhead


def overlapped(computed: Number, exchanged: float, hidden: float) -> Number:
    """Seconds of both, where that share of the shorter passes while the longer goes on."""
    return np.maximum(computed, exchanged) + (1 - hidden) * np.minimum(computed, exchanged)


def computing_seconds(work: Work, card: Card, attention: Number) -> Number:
    """Of a micro-batch; attention reaches that share of the card's peak."""
    return (work.products / MATRICES + work.attention / attention) / card.flops(work.dtype)


def exchanging_seconds(work: Work, card: Card) -> float:
    """Of all collectives of an update, one after the other."""
    whole = work.micro_batches * work.gathered + work.gathered_at_update
    swaps = work.micro_batches * swapping_seconds(work.swapped, work.shards, card)
    return gathering_seconds(whole, work.cards, card) + swaps


def gathering_seconds(size: float, cards: int, card: Card) -> float:
    """For so many cards to get tensors of `size` bytes, of which each holds a part; or to add up and scatter them.

    In two steps where there are several hosts: with the cards of the same place in other hosts, then within the host.
    """
    local = min(cards, card.cards_a_host)
    hosts = -(-cards // local)
    within = size * (local - 1) / local / card.link_among(local) if local > 1 else 0.0
    between = size / local * (hosts - 1) / hosts / card.between_hosts() if hosts > 1 else 0.0
    return (within + between) / COLLECTIVES


def swapping_seconds(sent: float, cards: int, card: Card) -> float:
    """For a card to send `sent` bytes, in equal parts, to each other one of its group, and to get as many."""
    local = min(cards, card.cards_a_host)
    within = sent * (local - 1) / (cards - 1) / card.link_among(local) if local > 1 else 0.0
    between = sent * (cards - local) / (cards - 1) / card.between_hosts() if cards > local else 0.0
    return (within + between) / COLLECTIVES


def _arithmetic(config: DiTConfig, recipe: Recipe, text_lengths: Sequence[int], tokens: int) -> tuple[int, int]:
    """FLOPs of one sample's training, of all cards that share it: of linear layers, and of attention."""
    every, keep = recipe.model.recompute_every_nth_block, recipe.model.not_recompute_fa
    sample = (config, tokens, text_lengths, recipe.train.sequence_parallel.shards)
    once = shared_training(*sample)
    again = shared_training(*sample, every, keep_attention=True).recomputed - once.recomputed
    products = once.projections + once.feed_forward + again
    return products, shared_training(*sample, every, keep).total - products
