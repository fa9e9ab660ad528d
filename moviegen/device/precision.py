"""The type that a network computes in, as its device can have it."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from moviegen.device import target
from moviegen.device.attention import Attention
from moviegen.device.compiled import check_bfloat16
from moviegen.device.kernels import Product


def compute_in(network: nn.Cell, dtype: ms.Type) -> ms.Type:
    """Has a network's products computed in `dtype`; returns the type of its activations.

    They are one, but for bfloat16 on CPU: there activations stay float32, and products round their factors to bfloat16,
    forward and backward, and sum in float32.

    Raises:
        NoBfloat16Error: this CPU has no such products.
    """
    if dtype != ms.bfloat16 or target() != "CPU":
        return dtype
    check_bfloat16()
    for _, cell in network.cells_and_names():
        if isinstance(cell, Product | Attention):
            cell.round_factors()
    return ms.float32
