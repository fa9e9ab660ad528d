"""What a recipe costs, by counting: parameters, tokens, arithmetic, memory and traffic. Nothing here is measured.

Letters: D model width, F feed-forward width, L layers, N visual tokens, M text tokens, P ranks.
"""

from __future__ import annotations

import operator
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from moviegen.config import PATCH, DiTConfig, Params, latent_size

FLOAT32 = 4  # bytes of a weight, of its gradient, and of each of AdamW's two moments, whatever the arithmetic's type
ADALN_VECTORS = 6  # shift, scale and gate, of self-attention and of the feed-forward network


def parameter_count(config: DiTConfig) -> int:
    """Parameters of the transformer without its position tables, which are counted by `position_count`."""
    width, patch = config.width, config.latent_channels * PATCH**2
    attention = 2 * 4 * width**2  # query, key, value, output; of self-attention and of cross-attention
    feed_forward = 3 * width * config.ffn_width
    block = attention + feed_forward + 2 * width + ADALN_VECTORS * width
    time = config.frequency_width * width + width**2 + ADALN_VECTORS * width**2
    text = sum(config.text_widths) * width + len(config.text_widths) * width
    ends = patch * width + (2 + 1) * width + width * patch  # patch embedding; last table and norm; last projection
    return config.num_layers * block + time + text + ends


def position_count(config: DiTConfig) -> int:
    """Parameters of the position tables: a row of D for each place along T, H and W."""
    return sum(config.max_size) * config.width


def matrix_count(config: DiTConfig) -> int:
    """Parameters in the weights of linear layers: what ZeRO 3 divides. Norms, modulation and position tables stay."""
    width, encoders = config.width, len(config.text_widths)
    block = 2 * width + ADALN_VECTORS * width
    whole = config.num_layers * block + encoders * width + (2 + 1) * width
    return parameter_count(config) - whole


def visual_tokens(frames: int, height: int, width: int) -> int:
    """Tokens of a video of that many frames and pixels."""
    latent_frames, latent_height, latent_width = latent_size(frames, height, width)
    return latent_frames * (latent_height // PATCH) * (latent_width // PATCH)


def attention_flops(config: DiTConfig, visual: int, text: int) -> int:
    """Forward FLOPs of one block's two softmax attentions for one sample: 2 matrix products, 2 FLOPs each."""
    return 4 * config.width * visual * (visual + text)


def block_flops(config: DiTConfig, visual: int, text: int) -> int:
    """Forward FLOPs of one block for one sample."""
    width = config.width
    projections = 2 * (6 * visual + 2 * text) * width**2  # only cross-attention's keys and values read the text
    feed_forward = 2 * visual * 3 * width * config.ffn_width
    return projections + feed_forward + attention_flops(config, visual, text)


def step_flops(
    config: DiTConfig,
    visual: int,
    text_lengths: Sequence[int],
    recompute_every: int = 0,
    keep_attention: bool = False,
) -> int:
    """FLOPs of one training sample: forward, backward (twice the forward), and what is computed again on the way back.

    Args:
        config: the transformer.
        visual: tokens of the video.
        text_lengths: tokens of the prompt in each encoder.
        recompute_every: every n-th block is recomputed; 0: none.
        keep_attention: recomputed blocks leave their attention out.
    """
    text = sum(text_lengths)
    block = block_flops(config, visual, text)
    again = block - (attention_flops(config, visual, text) if keep_attention else 0)
    recomputed = config.num_layers // recompute_every if recompute_every else 0
    ends = 2 * visual * 2 * config.latent_channels * PATCH**2 * config.width
    projections = 2 * config.width * sum(map(operator.mul, text_lengths, config.text_widths))
    return 3 * (config.num_layers * block + ends + projections) + recomputed * again


@dataclass(frozen=True)
class State:
    """Bytes that one rank holds from step to step, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Of all three."""
        return self.parameters + self.gradients + self.optimizer


def state_bytes(config: DiTConfig, ranks: int, zero_stage: int) -> State:
    """Memory of weights, gradient sums and optimizer state on each rank, activations not counted.

    All are float32; bfloat16 is the type of the arithmetic, and casts live no longer than activations. ZeRO 1 divides
    AdamW's two moments over the ranks, and keeps the reduced part of the gradients beside their sums; 2 divides the
    gradients too, 3 the matrices too. Where a whole weight is held, its updated part is held beside it, among the
    optimizer's. Exact where the ranks divide the width; else each tensor is padded by less than a number a rank. Not
    held from step to step, and not counted: what is gathered and scattered.
    """
    matrices = matrix_count(config)
    total = parameter_count(config) + position_count(config)
    parts = ranks if zero_stage else 1
    own = matrices / parts if zero_stage == 3 else matrices
    beside = (total - matrices if zero_stage == 3 else total) / parts if parts > 1 else 0
    gradients = total / parts if zero_stage >= 2 else total + (total / parts if parts > 1 else 0)
    return State(
        parameters=round(FLOAT32 * (own + total - matrices)),
        gradients=round(FLOAT32 * gradients),
        optimizer=round(FLOAT32 * (2 * total / parts + beside)),
    )


def ulysses_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block's self-attention: four all-to-alls of its N/P tokens, less its own part."""
    return round(4 * visual * config.width / shards * (shards - 1) / shards)


def gathered_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block where tokens are gathered and scattered instead (Megatron-LM): ~4 N D."""
    return round(4 * visual * config.width * (shards - 1) / shards)


@dataclass(frozen=True)
class Cost:
    """One training stage, counted."""

    scale: str
    stage: int
    parameters: int
    positions: int
    tokens: int
    flops: int
    state: State


def stage_cost(params: Params, stage: int) -> Cost:
    """The cost of one optimizer step of a stage, on its largest medium (its longest videos where it has them).

    `flops` is of the whole step: all data-parallel ranks, all accumulated micro-batches.
    """
    recipe, config = params.recipes[stage], params.dit_config(stage)
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    samples = batch.video_batch_size if recipe.dataset.longest > 1 else batch.image_batch_size
    ranks = params.launch.worker_num // recipe.train.sequence_parallel.shards
    tokens = visual_tokens(recipe.dataset.longest, *recipe.dataset.size)
    text_lengths = [encoder.max_tokens for encoder in (params.text.ul2, params.text.metaclip, params.text.byt5)]
    model = recipe.model
    flops = step_flops(config, tokens, text_lengths, model.recompute_every_nth_block, model.not_recompute_fa)
    return Cost(
        scale=params.scale,
        stage=stage,
        parameters=parameter_count(config),
        positions=position_count(config),
        tokens=tokens,
        flops=flops * samples * ranks * settings.gradient_accumulation_steps,
        state=state_bytes(config, params.launch.worker_num, settings.zero_stage),
    )


def si(value: float) -> str:
    """Three digits and a prefix: 4_920_000_000 is `4.92 G`."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:#.3g} {prefix}".replace(". ", " ")
    return f"{value:.3g} "


def main(params: Params, options: Namespace) -> None:
    """Prints the cost of the three stages; `options` has nothing for this verb."""
    del options
    print(
        f"{'scale':>6} {'stage':>6} {'parameters':>11} {'+ tables':>9} {'tokens':>8} {'FLOP/step':>10} {'GiB/rank':>9}"
    )
    for stage in sorted(params.stages):
        cost = stage_cost(params, stage)
        print(
            f"{cost.scale:>6} {cost.stage:>6} {si(cost.parameters):>11} {si(cost.positions):>9} {cost.tokens:>8,}"
            f" {si(cost.flops):>10} {cost.state.total / 2**30:>9.3g}"
        )
    print("GiB/rank: weights, gradients and optimizer state, all float32; activations come on top.")
