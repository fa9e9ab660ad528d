"""The one seam between CPU and Ascend: nothing else in the package asks which device it is on.

Importing this module prepares the environment and must come before MindSpore is imported; `moviegen/__init__.py`
sees to it. MindSpore itself is imported by `start` and by the modules of Cells (`attention`, `collectives`, `kernels`),
never here at the top: the report and the notebooks import this module and stay free of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moviegen.device import compiled, environment

if TYPE_CHECKING:
    import mindspore as ms

    from moviegen.config import Launch

# oneDNN 3.10, which MindSpore 2.9 and 2.10 bundle, has no AVX-512 kernel for 3x3 and 1-D convolutions and falls to its
# reference loop, about 100 times slower. Its AVX2 kernels are the fast ones, also on AVX-512 machines. Matrix products
# lose by it, large ones a fifth, small ones half: where the compiled operators convolve, oneDNN uses all there is.
CONVOLUTION_ENVIRONMENT = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
COMMON_ENVIRONMENT = {
    "GLOG_v": "3",  # errors only: MindSpore's warnings drown everything else
    # s. A rank is late by all that another does alone: compiling, its share of the clips to encode. On CPU collectives
    # wait 10 s by default, here a day; over HCCL 1836 s for one, 120 s for a connection, here as long as every kind of
    # card takes (CANN's list of environment variables). It is `launch.stall_timeout` that notices a job that hangs.
    "MS_CPU_COMM_OP_TIMEOUT": "86400",
    "HCCL_EXEC_TIMEOUT": "17340",
    "HCCL_CONNECT_TIMEOUT": "7200",
}
# Of collectives on cards, which else add what arrives first, and of the compiler of operators. MindSpore sets two of
# them where it is told to be deterministic; that of LCCL, which up to eight cards of a host exchange by, it does not.
DETERMINISTIC_ENVIRONMENT = {"HCCL_DETERMINISTIC": "true", "LCCL_DETERMINISTIC": "1", "TE_PARALLEL_COMPILER": "1"}
CHOICE = "MOVIEGEN_DEVICE"  # the variable that holds what `choose` was told, for this process and those it starts
set_here: set[str] = set()  # variables that this process has set for itself; those it starts see to their own


def accelerators() -> int:
    """How many Ascend cards this machine has."""
    return len([path for path in Path("/dev").glob("davinci*") if path.name.removeprefix("davinci").isdigit()])


def choose(recipe_device: str, operators: str = compiled.AUTO, dtype: str = "auto") -> None:
    """Keeps to a recipe's device (`launch.device`) and form of the operators. Before MindSpore's import.

    `CPU` computes there also where there are cards; `Ascend` leaves the CPU to machines without: for what needs none,
    and for trials.

    Args:
        dtype: `train.settings.dtype` of what will be computed.

    Raises:
        NotCompiledError: compiled operators are asked for and cannot be had.
        NoBfloat16Error: so are products of bfloat16.
    """
    os.environ[CHOICE] = recipe_device
    compiled.choose(operators, recipe_device)
    if dtype == "bfloat16" and target() == "CPU":
        compiled.check_bfloat16()
    prepare_environment()


def target() -> str:
    """`Ascend` where a card is present, or simulated, and `choose` was not told otherwise, else `CPU`."""
    has_card = accelerators() or environment.DRY_RUN in os.environ
    return "Ascend" if has_card and os.environ.get(CHOICE) != "CPU" else "CPU"


def compute_dtype(name: str = "auto") -> ms.Type:
    """The type of the transformer's arithmetic: bfloat16 on Ascend, float32 on CPU, or the one that is named."""
    import mindspore as ms

    if name == "auto":
        name = "bfloat16" if target() == "Ascend" else "float32"
    return getattr(ms, name)


def prepare_environment() -> None:
    """Sets what MindSpore reads once, when it is imported; a value already set by the user is kept.

    But for what no result may follow from: see `environment`. oneDNN is limited unless it is known that the compiled
    operators convolve: who imports MindSpore without a choice has convolutions that are fast in either form.

    Raises:
        ImportError: MindSpore was imported first, without these settings.
    """
    environment.clear()
    is_loaded = "mindspore" in sys.modules
    convolves = target() == "CPU" and os.environ.get(compiled.CHOICE) != compiled.COMPILED
    if convolves and is_loaded and not CONVOLUTION_ENVIRONMENT.keys() <= os.environ.keys():
        raise ImportError(
            "mindspore was imported before moviegen: convolutions would run about 100 times slower on this CPU. "
            "Import moviegen first, or set ONEDNN_MAX_CPU_ISA=AVX2"
        )
    variables = COMMON_ENVIRONMENT | (CONVOLUTION_ENVIRONMENT if convolves else {})
    for name in set_here - variables.keys() if not is_loaded else ():
        set_here.remove(name)
        os.environ.pop(name, None)
    for name, value in variables.items():
        if name not in os.environ:
            os.environ[name] = value
            set_here.add(name)


def start(seed: int, launch: Launch | None = None) -> None:
    """Chooses the device and graph mode for this process, seeds weight initialisation, says which operators compute.

    Args:
        launch: how far a card's graphs are compiled, how much of its memory is taken, and whether it adds in one order;
            MindSpore's own without it.
            Of a job, how many workers share the cores.
    """
    import mindspore as ms

    from moviegen.device import limits

    os.environ[compiled.THREADS] = str(limits.threads(launch))
    if os.environ.get("RANK_ID", "0") == "0" and os.environ.get("MS_ROLE") != "MS_SCHED":
        print(compiled.current().line, file=sys.stderr)
    if os.environ.get(CHOICE) == "Ascend" and target() == "CPU":
        print("note: launch.device is Ascend, and this machine has no card: its CPU computes", file=sys.stderr)
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device(target())
    if target() == "Ascend" and launch:
        ms.set_context(jit_config={"jit_level": launch.jit_level})
        ms.runtime.set_memory(max_size=launch.max_device_memory)
        if launch.deterministic:
            os.environ |= DETERMINISTIC_ENVIRONMENT
            ms.set_deterministic(True)  # before HCCL is started
    ms.set_seed(seed)


def card_memory() -> int:
    """Highest memory this process took on its card so far, in bytes; 0 on CPU."""
    import mindspore as ms

    return ms.runtime.max_memory_allocated() if target() == "Ascend" else 0


prepare_environment()
