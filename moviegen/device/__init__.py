"""The one seam between CPU and Ascend: nothing else in the package asks which device it is on.

Importing this module prepares the environment and must come before MindSpore is imported; `moviegen/__init__.py`
sees to it. MindSpore itself is imported by `attention`, `collectives`, `kernels` and `start`, never here at the top:
the report and the notebooks import this module and stay free of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moviegen.device import environment

if TYPE_CHECKING:
    import mindspore as ms

    from moviegen.config import Launch

# oneDNN 3.10, which MindSpore 2.9 and 2.10 bundle, has no AVX-512 kernel for 3x3 and 1-D convolutions and falls to its
# reference loop, about 100 times slower. Its AVX2 kernels are the fast ones, also on AVX-512 machines. Matrix products
# lose a little by it (ARCHITECTURE.md has the ratios).
CPU_ENVIRONMENT = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
COMMON_ENVIRONMENT = {
    "GLOG_v": "3",  # errors only: MindSpore's warnings drown everything else
    # s, a day. A CPU collective waits 10 s by default, and a rank is late by all that another does alone: compiling,
    # saving, its share of the clips to encode. It is `launch.stall_timeout` that notices a job that hangs.
    "MS_CPU_COMM_OP_TIMEOUT": "86400",
}
CHOICE = "MOVIEGEN_DEVICE"  # the variable that holds what `choose` was told, for this process and those it starts


def accelerators() -> int:
    """How many Ascend cards this machine has."""
    return len([path for path in Path("/dev").glob("davinci*") if path.name.removeprefix("davinci").isdigit()])


def choose(recipe_device: str) -> None:
    """Keeps to the device of a recipe (`launch.device`): `CPU` also where there are cards. Before MindSpore's import.

    `Ascend` leaves the CPU to machines without cards: for what needs none, and for trials.
    """
    os.environ[CHOICE] = recipe_device
    prepare_environment()


def target() -> str:
    """`Ascend` where a card is present and `choose` was not told otherwise, else `CPU`."""
    return "Ascend" if accelerators() and os.environ.get(CHOICE) != "CPU" else "CPU"


def compute_dtype(name: str = "auto") -> ms.Type:
    """The type of the transformer's arithmetic: bfloat16 on Ascend, float32 on CPU, or the one that is named.

    Raises:
        ValueError: bfloat16 on CPU, which has no such matrix product.
    """
    import mindspore as ms

    if name == "auto":
        name = "bfloat16" if target() == "Ascend" else "float32"
    if name == "bfloat16" and target() == "CPU":
        raise ValueError("train.settings.dtype bfloat16 does not exist on CPU: use auto, float32 or float16")
    return getattr(ms, name)


def prepare_environment() -> None:
    """Sets what MindSpore reads once, when it is imported; a value already set by the user is kept.

    But for what no result may follow from: see `environment`.

    Raises:
        ImportError: MindSpore was imported first, without these settings.
    """
    environment.clear()
    variables = COMMON_ENVIRONMENT | (CPU_ENVIRONMENT if target() == "CPU" else {})
    if target() == "CPU" and "mindspore" in sys.modules and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        raise ImportError(
            "mindspore was imported before moviegen: convolutions would run about 100 times slower on this CPU. "
            "Import moviegen first, or set ONEDNN_MAX_CPU_ISA=AVX2"
        )
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def start(seed: int, launch: Launch | None = None) -> None:
    """Chooses the device and graph mode for this process, and seeds weight initialisation.

    Args:
        launch: how far a card's graphs are compiled, and how much of its memory is taken; MindSpore's own without it.
    """
    import mindspore as ms

    if os.environ.get(CHOICE) == "Ascend" and target() == "CPU":
        print("note: launch.device is Ascend, and this machine has no card: its CPU computes", file=sys.stderr)
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device(target())
    if target() == "Ascend" and launch:
        ms.set_context(jit_config={"jit_level": launch.jit_level})
        ms.runtime.set_memory(max_size=launch.max_device_memory)
    ms.set_seed(seed)


def card_memory() -> int:
    """Highest memory this process took on its card so far, in bytes; 0 on CPU."""
    import mindspore as ms

    return ms.runtime.max_memory_allocated() if target() == "Ascend" else 0


prepare_environment()
