"""Arithmetic beside the bytes that it passes through a card's memory: which kinds of a step the memory holds up.

A card computes a second at most `min(peak, intensity * memory bandwidth)`, where intensity is FLOPs over bytes (the
roofline model: Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009). Bytes are counted simply:
every operator reads what it takes from memory once and writes what it gives once. Nothing stays in caches between two
operators, and none reads anything twice, so these are the bytes of a well tiled kernel. Casts, gathers, gradient sums
and what fusing saves are left out.

Letters: D model width, F feed-forward width, L layers, B samples, N tokens, n those of this card, M text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import Bucket, ConfigError, DiTConfig, Params, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.flops import ADALN_VECTORS, parameter_count, patch_width, position_count, recomputed_blocks
from moviegen.plan.memory import FLOAT32
from moviegen.plan.time import stage_work
from moviegen.plan.traffic import ELEMENT

LINEAR, ATTENTION, ELEMENTS, UPDATE = KINDS = ("linear layers", "attention", "element by element", "optimizer")
# AdamW of one weight: reads the weight, its gradient and two moments, writes three of them; 3 FLOPs for the first
# moment, 4 for the second, 6 for the step (root, sum, quotient, rate, decay, difference).
UPDATE_TENSORS, UPDATE_FLOPS = 7, 13
# One block forward, numbers read and written for each of a token's D: two modulated norms of 2 (in, out), two gated
# sums and the sum after cross-attention of 3, the positions' sum of 3. FLOPs: norms 4, modulation 2, gated sums 2, sums
# 1.
WIDE_NUMBERS, WIDE_FLOPS = 2 * 2 + 2 * 3 + 3 + 3, 2 * (4 + 2) + 2 * 2 + 1 + 1
HIDDEN_NUMBERS, HIDDEN_FLOPS = 3, 5  # SiLU(gate) * up, of each of F
PASSES = 3  # forward once; backward a gradient for each of two factors


@dataclass(frozen=True)
class Traffic:
    """One kind of a card's micro-batch: FLOPs, and bytes read from and written to the card's memory."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, card: Card, dtype: str) -> float:
        """The least that it takes: all arithmetic at the card's peak, or all bytes at its bandwidth."""
        return max(self.flops / card.flops(dtype), self.bytes / memory_bandwidth(card))


def memory_bandwidth(card: Card) -> float:
    """Bytes/s.

    Raises:
        ConfigError: the card's description does not say.
    """
    if card.memory_bandwidth is None:
        raise ConfigError(f"card {card.name}: memory_bandwidth is not published; there is no roofline without it")
    return card.memory_bandwidth


def ridge(card: Card, dtype: str) -> float:
    """FLOPs a byte from which on the arithmetic, not the memory, is what takes long."""
    return card.flops(dtype) / memory_bandwidth(card)


def attainable(intensity: float, card: Card, dtype: str) -> float:
    """FLOP/s below the roof."""
    return min(card.flops(dtype), intensity * memory_bandwidth(card))


def memory_traffic(params: Params, stage: int, clip: Bucket | None = None) -> dict[str, Traffic]:
    """A card's micro-batch of a stage by KINDS; without a clip, of its longest videos at its size, as `stage_work`.

    The optimizer's part is an update's, divided by its micro-batches.
    """
    recipe, config = params.recipes[stage], params.dit_config(stage)
    clip = clip or recipe.dataset.longest_clip
    work, settings = stage_work(params, stage, clip), recipe.train.settings
    element, lengths = ELEMENT[work.dtype], params.text.lengths
    own, text, samples = -(-visual_tokens(*clip) // work.shards), sum(lengths), work.samples
    again = recomputed_blocks(config, recipe.model.recompute_every_nth_block)
    attends_again = 0 if recipe.model.not_recompute_fa else again
    passes = PASSES * config.num_layers + again
    linear = passes * block_numbers(config, samples * own, samples * text)
    linear += PASSES * end_numbers(config, samples * own, samples, [samples * length for length in lengths])
    forward, backward = attention_numbers(config, samples * own, samples * text)
    attention = (config.num_layers + attends_again) * forward + config.num_layers * backward
    numbers, flops = elementwise(config, samples * own)
    total = parameter_count(config) + position_count(config)
    updated = total / work.cards if settings.zero_stage and work.cards > 1 else total
    return {
        LINEAR: Traffic(work.products, element * linear),
        ATTENTION: Traffic(work.attention, element * attention),
        ELEMENTS: Traffic(passes * flops, element * passes * numbers),
        UPDATE: Traffic(
            UPDATE_FLOPS * updated / work.micro_batches, FLOAT32 * UPDATE_TENSORS * updated / work.micro_batches
        ),
    }


def product_numbers(rows: int, ins: int, outs: int) -> int:
    """Numbers that a product (rows, ins) x (ins, outs) reads and writes; so many do its two gradients each."""
    return rows * ins + ins * outs + rows * outs


def block_numbers(config: DiTConfig, own: int, text: int) -> int:
    """One block's linear layers, forward, of B n visual and B M text tokens; see `dit.layers.Block`."""
    width, hidden = config.width, config.ffn_width
    attention = 6 * product_numbers(own, width, width) + 2 * product_numbers(text, width, width)
    return attention + 2 * product_numbers(own, width, hidden) + product_numbers(own, hidden, width)


def end_numbers(config: DiTConfig, own: int, samples: int, texts: list[int]) -> int:
    """The other linear layers, forward: patches in and out, text projections, time and its modulation.

    Args:
        own: B n.
        samples: B.
        texts: tokens of each encoder's texts, B times those of one.
    """
    width, patch = config.width, patch_width(config)
    ends = product_numbers(own, patch, width) + product_numbers(own, width, patch)
    projected = sum(product_numbers(rows, ins, width) for rows, ins in zip(texts, config.embedding_widths, strict=True))
    time = product_numbers(samples, config.frequency_width, width) + product_numbers(samples, width, width)
    return ends + projected + time + product_numbers(samples, width, ADALN_VECTORS * width)


def attention_numbers(config: DiTConfig, own: int, text: int) -> tuple[int, int]:
    """One block's two softmax attentions, forward and backward; none stores a score.

    Forward reads queries, keys and values and writes the output; backward reads those four and the output's gradient,
    and writes three gradients. Queries and outputs are of n D numbers; so are self-attention's keys and values, whether
    a card has n tokens with all heads or, by Ulysses, all tokens with as large a part of the heads. Those of
    cross-attention are of M D.
    """
    forward = (4 * own + 2 * own + 2 * text) * config.width
    backward = (8 * own + 4 * own + 4 * text) * config.width
    return forward, backward


def elementwise(config: DiTConfig, own: int) -> tuple[int, int]:
    """One block's norms, sums and activations, forward: numbers read and written, and FLOPs; each gradient as much.

    Backward is taken to be twice the forward, as of products.
    """
    numbers = own * (WIDE_NUMBERS * config.width + HIDDEN_NUMBERS * config.ffn_width)
    flops = own * (WIDE_FLOPS * config.width + HIDDEN_FLOPS * config.ffn_width)
    return numbers, flops
