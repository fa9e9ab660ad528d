"""Calls every operator on odd sizes by ctypes, and writes all results.

`python tests/device/operators_driver.py LIBRARY RESULTS.npz`: without MindSpore, so that it also runs under a
sanitizer. Every array is as large as its tensor, not a byte more.
"""

import ctypes
import sys

import numpy as np

RNG = np.random.default_rng(0)
SPACE = {"convolution": lambda n: n, "convolution_down": lambda n: n // 2, "convolution_up": lambda n: 2 * n}
TIME = {"temporal": lambda t: t, "temporal_down": lambda t: -(-t // 2), "temporal_up": lambda t: 2 * t}
PICTURES = (
    (1, 1, 1, 2, 2),
    (2, 3, 16, 32, 32),
    (5, 16, 20, 5, 7),
    (4, 33, 3, 16, 48),
    (9, 130, 8, 4, 6),
    (2, 80, 72, 9, 4),
)
# rows, inputs, outputs: tiny; by columns, and the gradient of weights by rows; by rows; panels that all threads share,
# of more than one depth
PRODUCTS = ((1, 1, 1), (37, 53, 71), (20, 300, 200), (300, 70, 90), (1100, 40, 3), (850, 500, 33), (40, 530, 840))
TOKENS = ((1, 1, 3), (3, 2, 5), (2, 100, 33), (5, 37, 130))  # B, N, D: of one number the norm is its sign
ATTENTIONS = ((1, 1, 3, 1, 5), (2, 37, 53, 3, 5), (1, 300, 270, 2, 32), (1, 97, 530, 1, 64), (1, 257, 40, 2, 128))
WEIGHTS = ((3,), (1, 1), (50, 700), (2, 3, 5, 7))
VIDEOS = ((1, 1, 3, 2, 2), (3, 4, 9, 16, 16), (1, 9, 33, 16, 17), (2, 2, 70, 5, 5))


def call(library, name, inputs, *outputs):
    """The outputs, of the given shapes, of an operator."""
    arrays = [*inputs, *(np.empty(shape, np.float32) for shape in outputs)]
    count = len(arrays)
    sizes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    data = (ctypes.c_void_p * count)(*[array.ctypes.data for array in arrays])
    ranks = (ctypes.c_int * count)(*[array.ndim for array in arrays])
    shapes = (ctypes.c_void_p * count)(*map(ctypes.addressof, sizes))
    assert getattr(library, name)(count, data, ranks, shapes, None, None, None) == 0
    return arrays[len(inputs) :]


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def convolve(library, name, x, weight, out_shape, frames=()):
    bias, dy = random(weight.shape[0]), random(*out_shape)
    yield from call(library, name, (x, weight, bias, *frames), out_shape)
    if frames:
        yield from call(library, f"{name}_onto", (x, weight, bias, dy, *frames), out_shape)
    yield from call(library, f"{name}_input", (weight, dy, x, *frames), x.shape)
    yield from call(library, f"{name}_weights", (x, dy, weight, bias, *frames), weight.shape, bias.shape)


def transformer(library):
    for rows, inputs, outputs in PRODUCTS:
        x, weight, dy = random(rows, inputs), random(outputs, inputs), random(rows, outputs)
        yield from call(library, "linear", (x, weight), dy.shape)
        yield from call(library, "linear_gradient", (x, weight, dy), x.shape, weight.shape)
    for batch, count, width in TOKENS:
        x, y, dy = (random(batch, count, width) for _ in range(3))
        weight, eps, shift, scale = random(width), np.float32([0.1]), random(batch, 1, width), random(batch, 1, width)
        yield from call(library, "rms_norm", (x, weight, eps), x.shape)
        yield from call(library, "rms_norm_gradient", (x, weight, eps, dy), x.shape, weight.shape)
        inputs = (x, weight, eps, shift, scale)
        yield from call(library, "modulated_norm", inputs, x.shape)
        of_inputs = (x.shape, weight.shape, shift.shape, scale.shape)
        yield from call(library, "modulated_norm_gradient", (*inputs, dy), *of_inputs)
        yield from call(library, "gated_sum", (x, shift, y), x.shape)
        yield from call(library, "gated_sum_gradient", (shift, y, dy), shift.shape, y.shape)
        yield from call(library, "swiglu", (x, y), x.shape)
        yield from call(library, "swiglu_gradient", (x, y, dy), x.shape, y.shape)


def attention(library):
    for batch, queries, keys, heads, width in ATTENTIONS:
        q, k, v, dout = (random(batch, count, heads, width) for count in (queries, keys, keys, queries))
        mask = (np.arange(keys) % 3 != 1).astype(np.float32)[None].repeat(batch, 0)
        for name, inputs in (("attention", (q, k, v)), ("masked_attention", (q, k, v, mask))):
            out, sums = call(library, name, inputs, q.shape, (batch, heads, queries))
            yield from (out, sums)
            yield from call(library, f"{name}_gradient", (*inputs, out, sums, dout), q.shape, k.shape, v.shape)


def updates(library):
    weights, gradients = [random(*shape) for shape in WEIGHTS], [random(*shape) for shape in WEIGHTS]
    yield from call(library, "sum_of_squares", gradients, (1,))
    size = sum(weight.size for weight in weights)
    moments, count = (random(size), np.abs(random(size))), np.array(3, np.float32)
    decays, constants = np.float32([0, 0.1, 0.2, 0]), np.float32([0.9, 0.95, 1e-8])
    for factor in (0.5, 0.0):
        rate_and_factor = (np.array(0.01, np.float32), np.array(factor, np.float32))
        yield from call(
            library, "adamw", (*weights, *moments, *gradients, decays, constants, *rate_and_factor, count), (1,)
        )
        yield from (array.copy() for array in (*weights, *moments, count))


def video(library):
    for count, channels, outputs, height, width in PICTURES:
        x, pointwise = random(count, channels, height, width), random(outputs, channels, 1, 1)
        for name, size in SPACE.items():
            out_shape = (count, outputs, size(height), size(width))
            yield from convolve(library, name, x, random(outputs, channels, 3, 3), out_shape)
        yield from convolve(library, "channel_mix", x, pointwise, (count, outputs, height, width), (random(1),))
    for batch, frames, channels, height, width in VIDEOS:
        x, weight = random(batch * frames, channels, height, width), random(channels, channels, 1, 3)
        for name, length in TIME.items():
            for ending in ("", "_zeros"):
                out_shape = (batch * length(frames), channels, height, width)
                yield from convolve(library, name + ending, x, weight, out_shape, (random(frames),))
        for name in ("group_norm", "group_norm_silu"):
            gamma, beta, eps = random(channels), random(channels), np.full(frames, 1e-6, np.float32)
            y, statistics = call(library, name, (x, gamma, beta, eps), x.shape, (batch, channels, 2))
            yield from (y, statistics)
            inputs = (x, gamma, beta, statistics, random(*x.shape))
            yield from call(library, f"{name}_gradient", inputs, x.shape, gamma.shape, beta.shape)
            inputs = (*inputs, random(*x.shape))
            yield from call(library, f"{name}_gradient_onto", inputs, x.shape, gamma.shape, beta.shape)


if __name__ == "__main__":
    loaded = ctypes.CDLL(sys.argv[1])
    results = [result for part in (transformer, attention, updates, video) for result in part(loaded)]
    np.savez(sys.argv[2], *results)
