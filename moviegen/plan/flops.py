"""Parameters and arithmetic of the transformer and of the autoencoder, by counting.

The rule: matrix products and convolutions, 2 FLOPs a multiply-add, nothing else. A convolution is what it is on paper:
each number of its output sums over its whole kernel, padding included. Left out are norms, activations, softmax,
positions, biases and interpolation, also where a form of the operators writes them as products with a constant row or
column; and the time-step times its frequencies, which is written as a product too, and sums nothing. Counts are of one
sample, and of whole texts: masked tokens are computed too. tests/plan/test_flops.py counts at the networks' operators.

Letters: D model width, F feed-forward width, L layers, N visual tokens, M text tokens; T, H, W of a clip, T', H', W' of
its latent, C channels.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from moviegen.config import PATCH, DiTConfig, TAEConfig, Tiling, latent_size

ADALN_VECTORS = 6  # shift, scale and gate, of self-attention and of the feed-forward network
RGB = 3
Size = tuple[int, int, int]  # frames, height and width, of a clip or of what a layer makes of it


@dataclass(frozen=True)
class Flops:
    """Arithmetic by kind."""

    projections: int = 0
    """Linear layers but for the feed-forward networks': of attention, patches, time, modulation, text; in the
    autoencoder queries, keys, values and outputs of attention."""
    attention: int = 0
    """The two products of softmax attention: queries with keys, probabilities with values."""
    feed_forward: int = 0
    """SwiGLU's three linear layers."""
    convolutions: int = 0
    """In space and in time; also the autoencoder's shortcuts, whose kernel is 1."""
    recomputed: int = 0
    """Of any kind, once more on the way back: what a form does beyond the network's own arithmetic."""

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(vars(self).values())

    def __add__(self, other: Flops) -> Flops:
        return Flops(*map(operator.add, vars(self).values(), vars(other).values()))

    def __mul__(self, times: int) -> Flops:
        return Flops(*(times * count for count in vars(self).values()))

    __rmul__ = __mul__


# ---- the transformer (paper 3.1.3)


def parameter_count(config: DiTConfig) -> int:
    """Parameters of the transformer without its position tables, which are counted by `position_count`."""
    width, patch = config.width, patch_width(config)
    block = block_matrix_count(config) + 2 * width + ADALN_VECTORS * width
    time = config.frequency_width * width + width**2 + ADALN_VECTORS * width**2
    text = sum(config.embedding_widths) * width + len(config.embedding_widths) * width
    ends = patch * width + (2 + 1) * width + width * patch  # patch embedding; last table and norm; last projection
    return config.num_layers * block + time + text + ends


def position_count(config: DiTConfig) -> int:
    """Parameters of the position tables: a row of D for each place along T, H and W."""
    return sum(config.max_size) * config.width


def block_matrix_count(config: DiTConfig) -> int:
    """Parameters in the weights of one block's linear layers."""
    attention = 2 * 4 * config.width**2  # query, key, value, output; of self-attention and of cross-attention
    feed_forward = 3 * config.width * config.ffn_width
    return attention + feed_forward


def matrix_count(config: DiTConfig) -> int:
    """Parameters in the weights of linear layers: what ZeRO 3 divides. Norms, modulation and position tables stay."""
    width, encoders = config.width, len(config.embedding_widths)
    block = 2 * width + ADALN_VECTORS * width
    whole = config.num_layers * block + encoders * width + (2 + 1) * width
    return parameter_count(config) - whole


def attention_flops(config: DiTConfig, visual: int, text: int) -> int:
    """Forward FLOPs of one block's two softmax attentions for one sample: 2 matrix products, 2 FLOPs each."""
    return 4 * config.width * visual * (visual + text)


def dit_block(config: DiTConfig, visual: int, text: int) -> Flops:
    """Forward, one block, one sample of N visual and M text tokens."""
    width = config.width
    return Flops(
        projections=2 * (6 * visual + 2 * text) * width**2,  # only cross-attention's keys and values read the text
        attention=attention_flops(config, visual, text),
        feed_forward=2 * visual * 3 * width * config.ffn_width,
    )


def block_flops(config: DiTConfig, visual: int, text: int) -> int:
    """Forward FLOPs of one block for one sample."""
    return dit_block(config, visual, text).total


def dit_forward(config: DiTConfig, visual: int, text_lengths: Sequence[int]) -> Flops:
    """The velocity of one sample.

    Args:
        config: the transformer.
        visual: tokens of the video. With 0 it is what does not depend on the video: time, modulation and text.
        text_lengths: tokens of the prompt in each encoder that is there.
    """
    width = config.width
    time = 2 * (1 + ADALN_VECTORS) * width**2  # the time MLP's second layer, and the modulation of all blocks
    velocity = 2 * visual * width * patch_width(config)
    ends = Flops(projections=_first_layers(config, visual, text_lengths) + time + velocity)
    return config.num_layers * dit_block(config, visual, sum(text_lengths)) + ends


def dit_training(
    config: DiTConfig,
    visual: int,
    text_lengths: Sequence[int],
    recompute_every: int = 0,
    keep_attention: bool = False,
) -> Flops:
    """Forward and backward of one sample, and what is computed once more on the way back.

    Backward is twice the forward, a product for each factor's gradient, but for the layers that read the latent, the
    sinusoids and the text embeddings, whose gradients nobody asks for. That is MindSpore's form; the compiled product
    makes both gradients whatever is asked for, and does that much more.

    Attention keeps no score map in any form: on the way back it multiplies queries with keys once more, half of its
    forward arithmetic, whatever is recomputed beside it. A recomputed block computes all its products again: the
    gradient of each gate needs even the last one. So it is in MindSpore's form where every block is recomputed. In
    other cases MindSpore 2.10 does less on CPU: where only some blocks are recomputed it keeps their attention and
    what that reads, and compiled operators are never computed again.

    Args:
        config, visual, text_lengths: see `dit_forward`.
        recompute_every: every n-th block is recomputed; 0: none.
        keep_attention: recomputed blocks leave their attention out, as FlashAttention on Ascend does; MindSpore's form
            on CPU has no such choice.
    """
    block, forward = dit_block(config, visual, sum(text_lengths)), dit_forward(config, visual, text_lengths)
    blocks = recomputed_blocks(config, recompute_every)
    again = block.total - (block.attention if keep_attention else 0)
    return 3 * forward + Flops(
        projections=-_first_layers(config, visual, text_lengths),
        recomputed=blocks * again + forward.attention // 2,
    )


def shared_training(
    config: DiTConfig,
    visual: int,
    text_lengths: Sequence[int],
    shards: int,
    recompute_every: int = 0,
    keep_attention: bool = False,
) -> Flops:
    """`dit_training` of a sample whose tokens are shared by `shards` ranks, of all of them together.

    They pad its tokens to as many each, and compute what does not depend on them, time and text, each for itself.
    """
    recompute = (recompute_every, keep_attention)
    padded = dit_training(config, -(-visual // shards) * shards, text_lengths, *recompute)
    return padded + (shards - 1) * dit_training(config, 0, text_lengths, *recompute)


def step_flops(
    config: DiTConfig,
    visual: int,
    text_lengths: Sequence[int],
    recompute_every: int = 0,
    keep_attention: bool = False,
) -> int:
    """`dit_training` without the scores that attention computes again: the arithmetic by which speeds are stated."""
    training = dit_training(config, visual, text_lengths, recompute_every, keep_attention)
    return training.total - dit_forward(config, visual, text_lengths).attention // 2


def recomputed_blocks(config: DiTConfig, every_nth: int) -> int:
    """How many of the blocks; 0 of `every_nth`: none."""
    return config.num_layers // every_nth if every_nth else 0


def patch_width(config: DiTConfig) -> int:
    """Numbers of a token as it comes and goes."""
    return config.latent_channels * PATCH**2


def _first_layers(config: DiTConfig, visual: int, text_lengths: Sequence[int]) -> int:
    """Forward FLOPs of the layers that make D of what comes from outside: patches, sinusoids, text embeddings."""
    texts = sum(length * width for length, width in zip(text_lengths, config.embedding_widths, strict=True))
    return 2 * (visual * patch_width(config) + config.frequency_width + texts) * config.width


# ---- the autoencoder (paper 3.1.1)


def tae_encode(config: TAEConfig, frames: int, height: int, width: int) -> Flops:
    """Mean and log-variance of one clip of so many frames and pixels; H and W divisible by 8.

    Temporal down-sampling computes the ceil(T / 2) frames that it keeps. The image autoencoder (`is_temporal` off)
    takes every frame by itself.
    """
    return _encoder(config, (frames, height, width)).flops


def tae_decode(config: TAEConfig, latent_frames: int, latent_height: int, latent_width: int) -> Flops:
    """All 8T' frames (T' of the image autoencoder) of one latent; those that are dropped are computed first.

    Up-sampling counts a whole kernel at each place of its output: 3 x 3 in space, 3 in time. Where it repeats what it
    reads, forms do less. In space the compiled one has 16 products for the four places of a pixel, not 36. In time
    MindSpore's has 3 for the two places of a frame, not 6, and the compiled one skips black frames beyond the border.
    """
    return _decoder(config, (latent_frames, latent_height, latent_width)).flops


def tiled_encode(config: TAEConfig, tiling: Tiling, size: Size) -> Flops:
    """A clip (T, H, W) in tiles: what tiles share is computed in each."""
    _, *tile = tiling.largest(*size)
    in_time = (tae_encode(config, stop - start, *tile) for start, stop in tiling.encoded(size[0]))
    return tiling.tiles(*size[1:]) * sum(in_time, Flops())


def tiled_decode(config: TAEConfig, tiling: Tiling, size: Size) -> Flops:
    """The latent of a clip (T, H, W) in tiles."""
    _, *tile = latent_size(*tiling.largest(*size))
    in_time = (tae_decode(config, stop - start, *tile) for start, stop in tiling.decoded(latent_size(*size)[0]))
    return tiling.tiles(*size[1:]) * sum(in_time, Flops())


def tae_training(config: TAEConfig, frames: int, height: int, width: int, recompute_every: int = 0) -> Flops:
    """Forward and backward of one clip, encoded and decoded again; its losses, LPIPS too, come on top.

    Backward is twice the forward, but for the first convolution in space, as nobody asks for the video's gradient.
    Recomputed are attention's scores, see `dit_training`, and every n-th residual block; 0: none.
    """
    latent = latent_size(frames, height, width)
    if not config.is_temporal:
        latent = (frames, *latent[1:])
    layers = _encoder(config, (frames, height, width)) + _decoder(config, latent)
    forward, first = layers.flops, _spatial(RGB, config.base_channels, (frames, height, width)).flops
    again = sum(layers.blocks[recompute_every - 1 :: recompute_every]) if recompute_every else 0
    return 3 * forward + Flops(convolutions=-first.convolutions, recomputed=forward.attention // 2 + again)


def tae_parameter_count(config: TAEConfig) -> int:
    """Parameters of encoder and decoder."""
    return (_encoder(config, (1, 8, 8)) + _decoder(config, (1, 1, 1))).parameters


@dataclass(frozen=True)
class _Layers:
    """Some of the autoencoder's layers, counted at a size.

    Attributes:
        blocks: FLOPs of each residual block among them, in their order.
    """

    parameters: int = 0
    flops: Flops = Flops()
    blocks: tuple[int, ...] = ()

    def __add__(self, other: _Layers) -> _Layers:
        return _Layers(self.parameters + other.parameters, self.flops + other.flops, self.blocks + other.blocks)


def _encoder(config: TAEConfig, size: Size) -> _Layers:
    """Of a video (T, H, W); see `moviegen.tae.coder.Encoder`."""
    widths = _widths(config)
    found = _conv2_5d(config, RGB, config.base_channels, size)
    for level, (ins, outs) in enumerate(itertools.pairwise([config.base_channels, *widths]), 1):
        found += _residuals(config, ins, outs, config.num_res_blocks, size)
        if level < len(widths):
            size = (size[0], size[1] // 2, size[2] // 2)
            found += _spatial(outs, outs, size)
            if config.is_temporal:
                size = (-(-size[0] // 2), *size[1:])
                found += _temporal(outs, size)
    found += _mid(config, widths[-1], size) + _norm(widths[-1])
    return found + _conv2_5d(config, widths[-1], 2 * config.latent_channels, size)


def _decoder(config: TAEConfig, size: Size) -> _Layers:
    """Of a latent (T', H', W'); see `moviegen.tae.coder.Decoder`."""
    widths = _widths(config)[::-1]
    found = _conv2_5d(config, config.latent_channels, widths[0], size) + _mid(config, widths[0], size)
    for level, (ins, outs) in enumerate(itertools.pairwise([widths[0], *widths]), 1):
        found += _residuals(config, ins, outs, config.num_res_blocks + 1, size)
        if level < len(widths):
            size = (size[0], 2 * size[1], 2 * size[2])
            found += _spatial(outs, outs, size)
            if config.is_temporal:
                size = (2 * size[0], *size[1:])
                found += _temporal(outs, size)
    return found + _norm(widths[-1]) + _conv2_5d(config, widths[-1], RGB, size)


def _widths(config: TAEConfig) -> list[int]:
    """Channels of each level, from the pixels down."""
    return [config.base_channels * multiplier for multiplier in config.channel_multipliers]


def _residuals(config: TAEConfig, ins: int, outs: int, count: int, size: Size) -> _Layers:
    """`count` residual blocks, the first of which changes the width; a projection then stands in its shortcut."""
    found = _Layers()
    for first, last in itertools.pairwise([ins] + [outs] * count):
        block = _norm(first) + _conv2_5d(config, first, last, size)
        block += _norm(last) + _conv2_5d(config, last, last, size)
        if first != last:
            block += _conv2_5d(config, first, last, size, kernel=1)
        found += _Layers(block.parameters, block.flops, (block.flops.total,))
    return found


def _mid(config: TAEConfig, channels: int, size: Size) -> _Layers:
    """Two residual blocks; between them attention over the places of each frame, then over the frames of each place."""
    frames, places = size[0], size[1] * size[2]
    found = _residuals(config, channels, channels, 2, size) + _attention(channels, frames, places)
    return found + _attention(channels, places, frames) if config.is_temporal else found


def _attention(channels: int, sequences: int, tokens: int) -> _Layers:
    """A norm, four projections, and attention with one head within each sequence."""
    products = _Layers(flops=Flops(attention=2 * 2 * sequences * tokens**2 * channels))
    places = sequences * tokens
    projections = _Layers(4 * (channels + 1) * channels, Flops(projections=4 * 2 * channels**2 * places))
    return _norm(channels) + projections + products


def _conv2_5d(config: TAEConfig, ins: int, outs: int, size: Size, kernel: int = 3) -> _Layers:
    """A convolution in space, then, in a video's autoencoder, one in time; both keep the size."""
    spatial = _spatial(ins, outs, size, kernel)
    return spatial + _temporal(outs, size, kernel) if config.is_temporal else spatial


def _spatial(ins: int, outs: int, size: Size, kernel: int = 3) -> _Layers:
    """A convolution in space; `size` is its output's."""
    return _convolution(ins, outs, kernel**2, size)


def _temporal(channels: int, size: Size, kernel: int = 3) -> _Layers:
    """A convolution in time; `size` is its output's."""
    return _convolution(channels, channels, kernel, size)


def _convolution(ins: int, outs: int, taps: int, size: Size) -> _Layers:
    """Weights (outs, ins, taps) and a bias, at each place of the output."""
    return _Layers((ins * taps + 1) * outs, Flops(convolutions=2 * ins * taps * outs * math.prod(size)))


def _norm(channels: int) -> _Layers:
    """A scale and a shift for each channel."""
    return _Layers(2 * channels)
