"""The type that a network computes in, as its device can have it."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from moviegen.device import target
from moviegen.device.attention import Attention
from moviegen.device.compiled import check_bfloat16
from moviegen.device.compiler import NoBfloat16Error
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


def check_convolves(name: str, parameter: str) -> None:
    """Does nothing where this device has convolutions in the type of that name.

    Raises:
        NoBfloat16Error: it is a CPU, whose convolutions are of float32, and MindSpore's own of float16 too.
    """
    if name == "bfloat16" and target() == "CPU":
        raise NoBfloat16Error(f"{parameter} bfloat16 takes Ascend: no CPU has such convolutions; write auto or float32")
