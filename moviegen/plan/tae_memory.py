"""What a card holds while the autoencoder trains, encodes and decodes, by counting.

As in `memory`: the tensors of the graph, in MindSpore's order; the CPU's compiled operators, or MindSpore's own, which
a card has. Training computes in the type of its `settings`, encoding and decoding in float32. A layer's activation is a
stack of frames (B*T, C, H, W); sizes here are of one video, (T, H, W).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from moviegen.config import TAE_PHASES, TEMPORAL_COMPRESSION, Params, TAEConfig, TAEStage, latent_size
from moviegen.plan.flops import RGB, Size, tae_parameter_count
from moviegen.plan.memory import FLOAT32, HALF, LAST, Memory

# VGG16's convolutions between its poolings (Simonyan and Zisserman 2015), of which LPIPS takes the last of each
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DECODING = "in the decoder's last level"
ENCODING = "in the encoder's first level"
BACK_IN_BLOCK = "back in a residual block"


@dataclass(frozen=True)
class Layer:
    """One layer and what it keeps for the backward pass.

    Attributes:
        kind: `norm` (with SiLU), `conv` (in space and time), `shortcut` (kernel 1), `down`, `up` or `attention`.
        ins, outs: channels.
        size: of what it takes.
        result: of what it gives.
    """

    kind: str
    ins: int
    outs: int
    size: Size
    result: Size


def tae_training_memory(params: Params, phase: str, workers: int = 1) -> Memory:
    """A card at the fullest moment of a phase, `image`, `opl-off`, `opl-on` or `mixkit`; on clips, not single frames.

    Gradients of all weights come as activations go, and are much smaller. The sums of several micro-batches stay, and
    an average of the weights where it is kept beside them: on cards it is on the host.

    Args:
        workers: among which ZeRO divides optimizer state, and sums.
    """
    stage: TAEStage = getattr(params.tae, TAE_PHASES[phase])
    config, settings = params.tae.model.model_copy(update={"is_temporal": phase != "image"}), stage.settings
    is_card, size = params.launch.device == "Ascend", (stage.frames, *stage.size)
    element = HALF if settings.dtype in ("float16", "bfloat16") or (settings.dtype == "auto" and is_card) else FLOAT32
    loss = params.tae.loss
    is_seen = bool(loss.perceptual and loss.lpips_checkpoint)  # by VGG16, whose weights are held too
    seen = is_seen * min(loss.perceptual_frames or stage.frames, stage.frames)
    weights = FLOAT32 * tae_parameter_count(config)
    shares = workers if settings.zero_stage else 1
    perceptual = _perceptual(seen, stage.size, element)
    every = stage.recompute_every_nth_block if is_card else 0  # compiled operators are kept out of recomputation
    moment, kept = _fullest(config, size, element, is_card, every, perceptual)
    parts = {
        "weights": weights + is_seen * FLOAT32 * _frozen(),
        "gradient sums": (settings.gradient_accumulation_steps > 1)
        * (weights // (shares if settings.zero_stage == 2 else 1)),
        "optimizer": (2 + (shares > 1)) * weights // shares,
        "average": weights // shares if stage.ema and not is_card else 0,
        "weight casts": weights // 2 if element == HALF else 0,
    } | {part: stage.batch_size * count for part, count in kept.items()}
    largest = element * stage.batch_size * _widest(config, size)
    return Memory(moment, parts, ("the decoder's last level (B*T, C, H, W)", largest))


def _fullest(
    config: TAEConfig, size: Size, element: int, is_card: bool, recompute_every: int, perceptual: int
) -> tuple[str, dict[str, int]]:
    """The fullest moment, and bytes of one video then.

    That is where the forward pass ends and LPIPS takes `perceptual`, or where a recomputed block's turn comes on the
    way back: it holds what it would else have kept, and a gradient; what was kept of all after it is forgotten.
    """
    clips = 4 * FLOAT32 * RGB * math.prod(size)
    inputs = activations = number = 0
    moments = []
    for layers in layers_by_block(config, size):
        number += len(layers) > 1
        kept = sum(_kept(layer, config, is_card, element) for layer in layers)
        if len(layers) > 1 and recompute_every and number % recompute_every == 0:
            first, last = layers[0], layers[-1]
            inputs += element * first.ins * math.prod(first.size)
            own = element * first.ins * math.prod(first.size) if first.ins != last.outs and is_card else 0
            live = kept - own + element * max(first.ins, last.outs) * math.prod(first.size)
            moments.append((BACK_IN_BLOCK, _held(inputs, activations, live, clips)))
        else:
            activations += kept
    widest = element * _widest(config, size)
    return max(
        [(LAST, _held(inputs, activations, widest, clips + perceptual)), *moments], key=lambda one: sum(one[1].values())
    )


def _held(inputs: int, activations: int, live: int, ends: int) -> dict[str, int]:
    return {"block inputs": inputs, "activations": activations, "live block": live, "ends": ends}


def tae_encoding_memory(params: Params, size: Size) -> Memory:
    """A card that encodes (T, H, W) at once: a short clip, or a tile of one (`Tiling.largest`)."""
    config, is_card = params.tae.model, params.launch.device == "Ascend"
    first = FLOAT32 * config.base_channels * math.prod(size)
    rows = 2 * config.num_res_blocks * first if is_card else 0
    live = (4 if is_card else 3) * first + rows
    parts = {"weights": FLOAT32 * tae_parameter_count(config), "live block": live} | _clip(size)
    return Memory(ENCODING, parts, ("the encoder's first level (T, C, H, W)", first))


def tae_decoding_memory(params: Params, size: Size) -> Memory:
    """A card that decodes a latent to (T, H, W) at once: a short clip, or a tile of one (`Tiling.largest`).

    Fullest where the last level's first block narrows the channels: its input, its norm and its shortcut. On a card the
    norm holds the centred input and its scales repeated over the positions, and the shifts of all norms of that level
    are repeated before anything is decoded: they need the weights alone.
    """
    config, is_card = params.tae.model, params.launch.device == "Ascend"
    decoded = (-(-size[0] // TEMPORAL_COMPRESSION) * TEMPORAL_COMPRESSION, *size[1:])
    outs, ins = (config.base_channels * multiplier for multiplier in config.channel_multipliers[:2])
    one = FLOAT32 * math.prod(decoded)
    channels = 2 * ins + outs
    if is_card:
        channels += ins + (ins + (2 * (config.num_res_blocks + 1) - 1) * outs + outs)
    parts = {"weights": FLOAT32 * tae_parameter_count(config), "live block": channels * one} | _clip(decoded)
    return Memory(DECODING, parts, ("the last temporal upsampling (T, C, H, W)", ins * one))


def layers_by_block(config: TAEConfig, size: Size) -> Iterator[tuple[Layer, ...]]:
    """Encoder and decoder of a video (T, H, W), in their order; see `moviegen.tae.coder`.

    A residual block's layers come together, each other by itself.
    """
    latent = latent_size(*size)
    yield from _encoder(config, size)
    yield from _decoder(config, latent if config.is_temporal else (size[0], *latent[1:]))


def _encoder(config: TAEConfig, size: Size) -> Iterator[tuple[Layer, ...]]:
    widths = _widths(config)
    yield (Layer("conv", RGB, widths[0], size, size),)
    for level, (ins, outs) in enumerate(itertools.pairwise([config.base_channels, *widths]), 1):
        yield from _residuals(ins, outs, config.num_res_blocks, size)
        if level < len(widths):
            smaller = (-(-size[0] // 2) if config.is_temporal else size[0], size[1] // 2, size[2] // 2)
            yield (Layer("down", outs, outs, size, smaller),)
            size = smaller
    yield from _mid(config, widths[-1], size)
    yield (Layer("norm", widths[-1], widths[-1], size, size),)
    yield (Layer("conv", widths[-1], 2 * config.latent_channels, size, size),)


def _decoder(config: TAEConfig, size: Size) -> Iterator[tuple[Layer, ...]]:
    widths = _widths(config)[::-1]
    yield (Layer("conv", config.latent_channels, widths[0], size, size),)
    yield from _mid(config, widths[0], size)
    for level, (ins, outs) in enumerate(itertools.pairwise([widths[0], *widths]), 1):
        yield from _residuals(ins, outs, config.num_res_blocks + 1, size)
        if level < len(widths):
            larger = (2 * size[0] if config.is_temporal else size[0], 2 * size[1], 2 * size[2])
            yield (Layer("up", outs, outs, size, larger),)
            size = larger
    yield (Layer("norm", widths[-1], widths[-1], size, size),)
    yield (Layer("conv", widths[-1], RGB, size, size),)


def _widths(config: TAEConfig) -> list[int]:
    return [config.base_channels * multiplier for multiplier in config.channel_multipliers]


def _residuals(ins: int, outs: int, count: int, size: Size) -> Iterator[tuple[Layer, ...]]:
    for first, last in itertools.pairwise([ins] + [outs] * count):
        shortcut = (Layer("shortcut", first, last, size, size),) if first != last else ()
        yield (
            Layer("norm", first, first, size, size),
            Layer("conv", first, last, size, size),
            Layer("norm", last, last, size, size),
            *shortcut,
            Layer("conv", last, last, size, size),
        )


def _mid(config: TAEConfig, channels: int, size: Size) -> Iterator[tuple[Layer, ...]]:
    yield from _residuals(channels, channels, 1, size)
    for _ in range(2 if config.is_temporal else 1):
        yield (Layer("attention", channels, channels, size, size),)
    yield from _residuals(channels, channels, 1, size)


def _kept(layer: Layer, config: TAEConfig, is_card: bool, element: int) -> int:
    """Bytes that a layer keeps of one video for its backward pass."""
    if is_card:
        return _kept_on_card(layer, config.is_temporal, element)
    return element * _kept_compiled(layer, config.is_temporal)


def _kept_compiled(layer: Layer, is_temporal: bool) -> int:
    """Numbers that it keeps. Compiled operators keep what they take, which is what the one before gave.

    A norm with its SiLU gives one tensor, a convolution one in space and one in time. Of a shortcut the last is only
    added, and forgotten. Attention: its norm, queries, keys, values, what it gives, its projection's input and the sum.
    """
    taken, given = layer.ins * math.prod(layer.size), layer.outs * math.prod(layer.result)
    spatial = layer.outs * math.prod((layer.size[0], *layer.result[1:]))
    return {
        "norm": taken,
        "conv": spatial + (given if is_temporal else 0),
        "shortcut": given if is_temporal else 0,
        "down": spatial + (given if is_temporal else 0),
        "up": spatial + (given if is_temporal else 0),
        "attention": 7 * taken,
    }[layer.kind]


def _kept_on_card(layer: Layer, is_temporal: bool, element: int) -> int:
    """MindSpore's own operators.

    A norm with SiLU keeps the centred frames, in float32, what SiLU takes and what it gives. A convolution over time
    keeps its frames. A shortcut keeps its input and its frames. Downsampling: its input, then even and odd frames, half
    of each. Upsampling: the enlarged frames, and those in space. Attention: its norm's two, and what its gradient
    reads: queries, keys and values, twice each as they are turned, and its output's input and projection.
    """
    taken, given = layer.ins * math.prod(layer.size), layer.outs * math.prod(layer.result)
    spatial = layer.outs * math.prod((layer.size[0], *layer.result[1:]))
    centred = FLOAT32 * taken if layer.kind in ("norm", "attention") else 0
    return (
        centred
        + element
        * {
            "norm": 2 * taken,
            "conv": spatial if is_temporal else 0,
            "shortcut": taken + (given if is_temporal else 0),
            "down": taken + (spatial if is_temporal else 0),
            "up": spatial + (spatial if is_temporal else 0),
            "attention": 9 * taken,
        }[layer.kind]
    )


def _widest(config: TAEConfig, size: Size) -> int:
    """Numbers of the largest activation: what the last upsampling gives."""
    return max(one.ins * math.prod(one.size) for layers in layers_by_block(config, size) for one in layers)


def _perceptual(frames: int, size: tuple[int, int], element: int) -> int:
    """Bytes of what LPIPS holds of so many frames where its last slices are compared.

    Of each slice, C channels at its resolution: what its convolutions give of the reconstruction after ReLU, which the
    backward pass reads, and the last of the original's; lengths repeated over the channels, and a product with them;
    the pooled frames (a fourth). The first slice has three more: the original's lengths, and both's products.
    Half precision has the last of the reconstruction's once more: it is compared in float32.
    """
    total, places = 0, math.prod(size)
    for slice_, widths in enumerate(VGG16):
        compared = 3 + (0 if slice_ else 3) + (element < FLOAT32)
        total += widths[-1] * places * (element * len(widths) + FLOAT32 * compared)
        places //= 4
        total += element * widths[-1] * places if slice_ < len(VGG16) - 1 else 0
    return frames * total


def _frozen() -> int:
    """Numbers in the weights of VGG16."""
    return sum(9 * ins * outs for ins, outs in itertools.pairwise([RGB, *itertools.chain(*VGG16)]))


def _clip(size: Size) -> dict[str, int]:
    """The frames themselves, as they come or as they are given, and once more as they are turned."""
    return {"ends": 2 * FLOAT32 * RGB * math.prod(size)}
