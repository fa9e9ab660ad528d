"""Flow matching (paper 3.1.2; original report, Training Objective).

X_t = t X_1 + (1 - (1 - sigma_min) t) X_0 leads from noise X_0 at t = 0 to data X_1 at t = 1, and the network learns its
velocity V = X_1 - (1 - sigma_min) X_0. The network itself is told 1000 (1 - t), as the published weights are.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

SIGMA_MIN = 1e-5


# 3.1.2: X_t
def interpolate(x_1: Any, x_0: Any, t: Any) -> Any:
    """X_t; t broadcasts against data x_1 and noise x_0."""
    return t * x_1 + (1 - (1 - SIGMA_MIN) * t) * x_0


# 3.1.2: V_t
def velocity(x_1: Any, x_0: Any) -> Any:
    """dX_t / dt."""
    return x_1 - (1 - SIGMA_MIN) * x_0


def timestep(t: Any) -> Any:
    """The network's time input: 1000 is noise, 0 is data."""
    return 1000 * (1 - t)


# 3.1.2: the times that training draws
def logit_normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Training times: the sigmoid of a standard normal, float32 (count,) in (0, 1)."""
    return (1 / (1 + np.exp(-rng.standard_normal(count)))).astype(np.float32)


def uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """Training times without preference, float32 (count,) in (0, 1)."""
    return ((rng.integers(0, 2**23, count) + 0.5) / 2**23).astype(np.float32)


def shifted(t: np.ndarray, shift: float) -> np.ndarray:
    """Times moved towards noise: log(t / (1 - t)) falls by log(shift); 1 leaves them (Stable Diffusion 3, 5.3.2).

    The more tokens a sample has, the earlier its noise averages out and gives the content away. Without a shift a stage
    of many tokens then hardly sees a time at which only the caption can tell, and unlearns captions.
    """
    return t / (t + np.float32(shift) * (1 - t))


def training_times(rng: np.random.Generator, count: int, sampling: str, shift: float = 1.0) -> np.ndarray:
    """Times of one batch, `logit-normal` (paper 3.1.2) or `uniform`, shifted: float32 (count,) in (0, 1)."""
    return shifted({"logit-normal": logit_normal, "uniform": uniform}[sampling](rng, count), shift)


def validation_times(count: int) -> np.ndarray:
    """The fixed times of the validation loss: midpoints of `count` equal parts of [0, 1], float32."""
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


# 3.1.2: the objective, E || u(X_t, P, t) - V_t ||^2
class FlowMatchingLoss(nn.Cell):
    """Mean squared error of the predicted velocity."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.network = network

    def construct(self, x_1: ms.Tensor, x_0: ms.Tensor, t: ms.Tensor, *rest: ms.Tensor) -> ms.Tensor:
        """x_1, x_0 (B, C, T', H', W') or tokens (B, N, ...), t (B,), the rest as the network takes it -> scalar."""
        return self.squared_error(x_1, x_0, t, *rest).mean()

    def squared_error(self, x_1: ms.Tensor, x_0: ms.Tensor, t: ms.Tensor, *rest: ms.Tensor) -> ms.Tensor:
        """Of each number of the velocity; see `construct`."""
        x_t = interpolate(x_1, x_0, t.reshape((-1,) + (1,) * (x_1.ndim - 1)))
        error = self.network(x_t, timestep(t), *rest) - velocity(x_1, x_0)
        return error * error


class SampleLosses(FlowMatchingLoss):
    """The same of each sample by itself, so that it is known at each time."""

    def construct(self, x_1: ms.Tensor, x_0: ms.Tensor, t: ms.Tensor, *rest: ms.Tensor) -> ms.Tensor:
        """As `FlowMatchingLoss` -> (B,)."""
        return self.squared_error(x_1, x_0, t, *rest).reshape(x_1.shape[0], -1).mean(1)
