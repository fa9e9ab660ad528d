"""What a host does in a training step, as tasks that a calibration has rates for (`plan.host`).

Matrix products and convolutions are those of `plan.flops`. Beside them, by counting on paper: norms, activations and
sums of what several layers read, whose time is that of passing over memory; the update; what ranks exchange.
Not counted are batches that are made meanwhile, and operators that have almost nothing to do but for those of a block.

Letters: see `plan.flops`; B samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from moviegen.config import (
    TAE_PHASES,
    Bucket,
    ConfigError,
    DiTConfig,
    Params,
    Recipe,
    TAEConfig,
    latent_size,
    visual_tokens,
)
from moviegen.plan.flops import ADALN_VECTORS, RGB, Size, patch_width, tae_parameter_count
from moviegen.plan.host import Task
from moviegen.plan.memory import FLOAT32
from moviegen.plan.tae_memory import VGG16
from moviegen.plan.traffic import weights_of

TRAINED = 3  # a layer's arithmetic, of its forward: itself and the gradients of what it reads and of its weights
SEVEN_HALVES = 3.5  # attention's: two products forward, five backward, as the scores are computed again
SMALL_OPERATORS = 6  # of a block: modulation is added to, split, and on the way back joined and summed
# Passes over the features that LPIPS compares, forward of both images and backward of one: multiplications, products
# with rows or columns that sum or repeat, a difference, and sums of gradients.
LPIPS_PASSES = 8 + 8 + 1 + 3
# A pixel's loss: difference, its length, mean; backward its sign, weighted, spread; sum with LPIPS's gradient; both
# videos are cut into frames
PIXEL_PASSES = 3 + 3 + 1 + 2
UP_COMPILED = 16 / 36  # of the products of a doubled picture's convolution, those that are of different pixels
NOT_COUNTED = "is not counted for a host (plan/host_tasks.py)"


# ---- the transformer


def stage_tasks(params: Params, stage: int, clip: Bucket, is_compiled: bool = True) -> list[Task]:
    """One rank's tasks of one update of a stage on such clips.

    Args:
        clip: of each sample; one frame is an image.
        is_compiled: the form of the operators.

    Raises:
        ConfigError: the recipe has what is not counted here.
    """
    recipe, config, launch = params.recipes[stage], params.dit_config(stage), params.launch_of(stage)
    _check_counted(recipe, stage)
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    samples = batch.samples(clip)
    micro_batches, weights = settings.gradient_accumulation_steps, weight_sizes(config)
    tasks = micro_batches * list(_transformer(config, samples, visual_tokens(*clip), params.text.lengths))
    if micro_batches > 1:
        tasks += [*micro_batches * [_pass(sum(weights))], _pass(sum(weights))]  # added to sums, which start over
    return [
        *tasks,
        Task("call", 1, micro_batches + (micro_batches > 1)),
        Task("launch", 1, micro_batches * SMALL_OPERATORS * config.num_layers),
        *_updating(weights, launch.worker_num, settings.zero_stage if launch.worker_num > 1 else 0,
                   recipe.train.ema is not None, is_compiled),
    ]  # fmt: skip


def weight_sizes(config: DiTConfig) -> list[int]:
    """Numbers of each of the transformer's weights."""
    weights = weights_of(config)
    return [*weights.first, *weights.time, *config.num_layers * weights.block, *weights.shared, *weights.whole]


def _check_counted(recipe: Recipe, stage: int) -> None:
    settings = recipe.train.settings
    odd = {
        "train.settings.dtype": settings.dtype in ("bfloat16", "float16") and settings.dtype,
        "train.settings.zero_stage": settings.zero_stage == 3 and 3,
        "train.sequence_parallel.shards": recipe.train.sequence_parallel.shards > 1
        and recipe.train.sequence_parallel.shards,
        "model.recompute_every_nth_block": recipe.model.recompute_every_nth_block,
    }
    for name, value in odd.items():
        if value:
            raise ConfigError(f"stage {stage}: {name} {value} {NOT_COUNTED}")


def _transformer(config: DiTConfig, samples: int, visual: int, text_lengths: tuple[int, ...]) -> Iterator[Task]:
    """Forward and backward of a micro-batch."""
    width, ffn, text = config.width, config.ffn_width, sum(text_lengths)
    rows, of_text, patch = samples * visual, samples * text, patch_width(config)
    head_width = width // config.num_heads
    for _ in range(config.num_layers):
        yield from 6 * [_product(rows, width, width)]  # queries and outputs twice, keys and values of the tokens
        yield from 2 * [_product(of_text, width, width)]
        yield from 2 * [_product(rows, width, ffn)]
        yield _product(rows, ffn, width)
        for keys in (visual, text):
            yield _attention(samples * config.num_heads, visual, keys, head_width)
        yield from 2 * [Task("modulation", rows * width, rows * width)]
        yield Task("activation", rows * ffn, rows * ffn)
        # forward positions and cross-attention are added; backward come together: three gradients of what queries, keys
        # and values read, two of what gate and up read, two at cross-attention, and those of the positions
        yield from 7 * [_pass(rows * width)]
        yield from 2 * [_pass(of_text * width)]  # of keys' and values' gradients, and of all blocks'
    yield _product(samples, config.frequency_width, width)
    yield _product(samples, width, width)
    yield _product(samples, width, ADALN_VECTORS * width)
    for length, encoder in zip(text_lengths, config.embedding_widths, strict=True):
        yield _product(samples * length, encoder, width)
        yield Task("modulation", samples * length * width, samples * length * width)
    yield _product(rows, patch, width)
    yield Task("modulation", rows * width, rows * width)
    yield _product(rows, width, patch)
    # interpolated (3), order of the channels changed twice, velocity (2), error, its square, mean, and its gradient (2)
    yield from 11 * [_pass(rows * patch)]


def _updating(
    weights: list[int], workers: int, zero_stage: int, has_average: bool, is_compiled: bool
) -> Iterator[Task]:
    """Exchange of the gradients, AdamW, the average, and at ZeRO 1 and 2 the weights gathered again."""
    share = workers if zero_stage else 1
    if workers > 1:
        for size in weights:
            yield Task("all_reduce", FLOAT32 * size, FLOAT32 * size)
            if zero_stage:
                yield from 2 * [_pass(size)]  # filled up to a multiple of the ranks; its part cut out
                yield Task("all_gather", FLOAT32 * size, FLOAT32 * size)
                yield from 2 * [_pass(size)]  # cut to length, assigned
    owned = sum(weights) / share
    yield Task("update", owned, owned)
    if has_average:
        # on the host: the weights copied, a difference, its share, added
        yield from [Task("average", owned, owned)] if is_compiled else 4 * [_pass(owned)]


# ---- the autoencoder


def tae_tasks(params: Params, phase: str, clip: Bucket, is_compiled: bool = True) -> list[Task]:
    """The tasks of one update of a TAE phase (`image`, `opl-off`, `opl-on`, `mixkit`) on such clips; one process.

    The outlier penalty, a few passes over the latent, is left out.

    Raises:
        ConfigError: it recomputes, or computes in half precision.
    """
    stage = getattr(params.tae, TAE_PHASES[phase])
    for name, value in (
        ("settings.dtype", stage.settings.dtype in ("bfloat16", "float16") and stage.settings.dtype),
        ("recompute_every_nth_block", stage.recompute_every_nth_block),
    ):
        if value:
            raise ConfigError(f"tae.{TAE_PHASES[phase]}.{name} {value} {NOT_COUNTED}")
    micro_batches = stage.settings.gradient_accumulation_steps
    config = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    layers = _Layers(config, stage.batch_size, is_compiled)
    size = (clip.frames, clip.height, clip.width)
    latent = latent_size(*size) if config.is_temporal else (clip.frames, *latent_size(*size)[1:])
    tasks = [*layers.encoder(size), *layers.decoder(latent)]
    tasks += PIXEL_PASSES * [_pass(stage.batch_size * RGB * math.prod(size))]
    loss = params.tae.loss
    if loss.perceptual and loss.lpips_checkpoint:
        seen = min(clip.frames, loss.perceptual_frames or clip.frames)
        tasks += _perceptual(stage.batch_size * seen, clip.height, clip.width)
    calls = micro_batches + (micro_batches > 1)
    updating = _updating([tae_parameter_count(config)], 1, 0, stage.ema is not None, is_compiled)
    return [*micro_batches * tasks, Task("call", 1, calls), *updating]


@dataclass(frozen=True)
class _Layers:
    """The autoencoder's layers in the order of `plan.flops`, of B clips, forward and backward."""

    config: TAEConfig
    samples: int
    is_compiled: bool

    def encoder(self, size: Size) -> Iterator[Task]:
        config, widths = self.config, self._widths()
        yield self._convolution("spatial", RGB, config.base_channels, 9, size, parts=TRAINED - 1)
        yield from self._over_time(config.base_channels, size)
        for level, (ins, outs) in enumerate(itertools.pairwise([config.base_channels, *widths]), 1):
            yield from self._residuals(ins, outs, config.num_res_blocks, size)
            if level < len(widths):
                size = (size[0], size[1] // 2, size[2] // 2)
                yield self._convolution("spatial", outs, outs, 9, size)
                if config.is_temporal:
                    size = (-(-size[0] // 2), *size[1:])
                    yield from self._over_time(outs, size)
        yield from self._mid(widths[-1], size)
        yield self._norm(widths[-1], size)
        yield from self._conv2_5d(widths[-1], 2 * config.latent_channels, size)

    def decoder(self, size: Size) -> Iterator[Task]:
        config, widths = self.config, self._widths()[::-1]
        yield from self._conv2_5d(config.latent_channels, widths[0], size)
        yield from self._mid(widths[0], size)
        for level, (ins, outs) in enumerate(itertools.pairwise([widths[0], *widths]), 1):
            yield from self._residuals(ins, outs, config.num_res_blocks + 1, size)
            if level < len(widths):
                size = (size[0], 2 * size[1], 2 * size[2])
                parts = TRAINED * (UP_COMPILED if self.is_compiled else 1)
                yield self._convolution("spatial", outs, outs, 9, size, parts)
                if config.is_temporal:
                    size = (2 * size[0], *size[1:])
                    yield from self._over_time(outs, size)
        yield self._norm(widths[-1], size)
        yield from self._conv2_5d(widths[-1], RGB, size)

    def _widths(self) -> list[int]:
        return [self.config.base_channels * multiplier for multiplier in self.config.channel_multipliers]

    def _residuals(self, ins: int, outs: int, count: int, size: Size) -> Iterator[Task]:
        for first, last in itertools.pairwise([ins] + [outs] * count):
            yield self._norm(first, size)
            yield from self._conv2_5d(first, last, size)
            yield self._norm(last, size)
            yield from self._conv2_5d(last, last, size)
            if first != last:
                yield self._convolution("temporal", first, last, 1, size)  # a kernel of 1 mixes channels, as over time
                yield from self._over_time(last, size, taps=1)

    def _mid(self, channels: int, size: Size) -> Iterator[Task]:
        frames, places = self.samples * size[0], size[1] * size[2]
        numbers = frames * places * channels
        yield from self._residuals(channels, channels, 2, size)
        yield self._norm(channels, size)
        yield from 4 * [self._convolution("temporal", channels, channels, 1, size)]
        yield _attention(frames, places, places, channels)
        yield from 8 * [_pass(numbers)]  # queries, keys, values and the output are turned, there and back
        if self.config.is_temporal:
            yield self._norm(channels, size)
            yield from 4 * [_product(frames * places, channels, channels)]
            yield _attention(self.samples * places, size[0], size[0], channels)
            yield from (4 + 4 + 4 + 3) * [_pass(numbers)]  # turned; biases, and their gradients; sums of gradients

    def _conv2_5d(self, ins: int, outs: int, size: Size) -> Iterator[Task]:
        yield self._convolution("spatial", ins, outs, 9, size)
        yield from self._over_time(outs, size)

    def _over_time(self, channels: int, size: Size, taps: int = 3) -> Iterator[Task]:
        if self.config.is_temporal:
            yield self._convolution("temporal", channels, channels, taps, size)

    def _convolution(self, kind: str, ins: int, outs: int, taps: int, size: Size, parts: float = TRAINED) -> Task:
        """`size` is the output's; `parts`: its forward arithmetic, so many times."""
        return Task(kind, math.sqrt(ins * outs), parts * 2 * taps * ins * outs * self.samples * math.prod(size))

    def _norm(self, channels: int, size: Size) -> Task:
        numbers = self.samples * channels * math.prod(size)
        return Task("group_norm", numbers, numbers)


def _perceptual(images: int, height: int, width: int) -> Iterator[Task]:
    """LPIPS of as many pairs of images: forward of both, backward of one."""
    ins = RGB
    for number, widths in enumerate(VGG16):
        places = images * (height >> number) * (width >> number)
        if number:
            before = 4 * places * ins
            yield Task("pooling", before, 1.5 * before)  # of both images; of one, its gradient, which takes as long
        for outs in widths:
            yield Task("frozen", places, 3 * 2 * 9 * ins * outs * places)
            yield from 3 * [_pass(outs * places)]  # max(x, 0) of both, and its gradient of one
            ins = outs
        yield from LPIPS_PASSES * [_pass(ins * places)]


# ---- tasks


def _product(rows: int, ins: int, outs: int) -> Task:
    forward = 2 * rows * ins * outs
    return Task("product", forward, TRAINED * forward)


def _attention(sequences: int, queries: int, keys: int, width: int) -> Task:
    forward = 2 * 2 * sequences * queries * keys * width
    return Task("attention", math.sqrt(queries * keys), SEVEN_HALVES * forward)


def _pass(numbers: float) -> Task:
    return Task("pass", numbers, numbers)
