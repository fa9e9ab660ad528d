import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen.train.checkpoint import Part


class Regression(nn.Cell):
    """Mean squared error of a linear model, and its mean absolute error as a further term."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.linspace(-1, 1, 6).reshape(3, 2), ms.float32))
        self.bias = ms.Parameter(ms.Tensor(np.zeros(2), ms.float32))

    def construct(self, x, y):
        error = ops.matmul(x, self.weight) + self.bias - y
        return (error * error).mean(), error.abs().mean()


def regression_batch(seed):
    """Four samples."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4, 3), np.float32), rng.standard_normal((4, 2), np.float32)


def parts_of(files):
    """Whole arrays by kind, as one rank alone writes them."""
    return [
        Part(f"{kind}/{name}", array.shape, 0, array.reshape(-1))
        for kind, arrays in files.items()
        for name, array in arrays.items()
    ]
