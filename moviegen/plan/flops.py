"""Parameters and arithmetic of the transformer, by counting.

Letters: D model width, F feed-forward width, L layers, N visual tokens, M text tokens.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from moviegen.config import PATCH, DiTConfig

ADALN_VECTORS = 6  # shift, scale and gate, of self-attention and of the feed-forward network


def parameter_count(config: DiTConfig) -> int:
    """Parameters of the transformer without its position tables, which are counted by `position_count`."""
    width, patch = config.width, config.latent_channels * PATCH**2
    attention = 2 * 4 * width**2  # query, key, value, output; of self-attention and of cross-attention
    feed_forward = 3 * width * config.ffn_width
    block = attention + feed_forward + 2 * width + ADALN_VECTORS * width
    time = config.frequency_width * width + width**2 + ADALN_VECTORS * width**2
    text = sum(config.embedding_widths) * width + len(config.embedding_widths) * width
    ends = patch * width + (2 + 1) * width + width * patch  # patch embedding; last table and norm; last projection
    return config.num_layers * block + time + text + ends


def position_count(config: DiTConfig) -> int:
    """Parameters of the position tables: a row of D for each place along T, H and W."""
    return sum(config.max_size) * config.width


def matrix_count(config: DiTConfig) -> int:
    """Parameters in the weights of linear layers: what ZeRO 3 divides. Norms, modulation and position tables stay."""
    width, encoders = config.width, len(config.embedding_widths)
    block = 2 * width + ADALN_VECTORS * width
    whole = config.num_layers * block + encoders * width + (2 + 1) * width
    return parameter_count(config) - whole


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
        text_lengths: tokens of the prompt in each encoder that is there.
        recompute_every: every n-th block is recomputed; 0: none.
        keep_attention: recomputed blocks leave their attention out.
    """
    text = sum(text_lengths)
    block = block_flops(config, visual, text)
    again = block - (attention_flops(config, visual, text) if keep_attention else 0)
    recomputed = config.num_layers // recompute_every if recompute_every else 0
    ends = 2 * visual * 2 * config.latent_channels * PATCH**2 * config.width
    projections = 2 * config.width * sum(map(operator.mul, text_lengths, config.embedding_widths))
    return 3 * (config.num_layers * block + ends + projections) + recomputed * again
