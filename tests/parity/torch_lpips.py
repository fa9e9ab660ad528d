"""LPIPS in PyTorch; the weights are named as those of `lpips.LPIPS(net="vgg")`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # VGG16's convolutions; pooling is between slices
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class TorchLPIPS(nn.Module):
    """Distance (N,) of two (N, 3, H, W) in [-1, 1]; frozen."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name.replace(".", "_"), torch.as_tensor(array))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = ((x - self.shift) / self.scale for x in (a, b))
        distance = 0.0
        for number, places in enumerate(SLICES):
            a, b = self.features(a, number, places), self.features(b, number, places)
            head = getattr(self, f"lin{number}_model_1_weight")
            distance = distance + F.conv2d((unit(a) - unit(b)) ** 2, head.float()).mean((1, 2, 3))
        return distance

    def features(self, x: torch.Tensor, number: int, places: tuple[int, ...]) -> torch.Tensor:
        x = F.max_pool2d(x, 2) if number else x
        for place in places:
            weight, bias = (getattr(self, f"net_slice{number + 1}_{place}_{part}") for part in ("weight", "bias"))
            x = F.relu(F.conv2d(x.to(weight.dtype), weight, bias.to(weight.dtype), padding=1))
        return x


def unit(features: torch.Tensor) -> torch.Tensor:
    """Every position's features as a vector of length 1, in float32."""
    features = features.float()
    return features / (features.square().sum(1, keepdim=True) + 1e-20).sqrt()
