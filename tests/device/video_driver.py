"""Calls every operator of the autoencoder on odd sizes by ctypes, and prints a hash of all results.

`python tests/device/video_driver.py LIBRARY`: without MindSpore, so that it also runs under a sanitizer. Every array
is as large as its tensor, not a byte more.
"""

import ctypes
import hashlib
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


def results(library):
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
    digest = hashlib.sha256()
    for array in results(ctypes.CDLL(sys.argv[1])):
        digest.update(array.tobytes())
    print(digest.hexdigest())
