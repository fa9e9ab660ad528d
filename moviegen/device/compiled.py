"""Which operators compute on the CPU: the compiled ones of `operators.cpp`, or MindSpore's own.

A Cell asks `is_compiled` when it is made and holds one of the two. Networks, checkpoints and parameters are the same.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moviegen import device
from moviegen.device import compiler

if TYPE_CHECKING:
    from mindspore import ops

CHOICE = "MOVIEGEN_OPERATORS"  # the variable that holds what was chosen, for this process and those it starts
THREADS = "MOVIEGEN_THREADS"  # what the library reads when it computes first
AUTO, COMPILED, MINDSPORE = "auto", "compiled", "mindspore"


@dataclass(frozen=True)
class Form:
    """One of the two, and why it is that one."""

    name: str
    """COMPILED or MINDSPORE."""
    why: str
    """Of the compiled ones, the processor's level that they are for."""
    library: Path | None = None

    def __str__(self) -> str:
        if not self.library:
            return "MindSpore's own"
        threads = os.environ.get(THREADS)  # of a process that computes
        share = f", {threads} thread{'' if threads == '1' else 's'}" if threads else ""
        return f"compiled ({self.why}{share})"

    @property
    def line(self) -> str:
        """What a program says at its start."""
        return f"operators: {self}" if self.library else f"operators: {self}: {self.why}"


_chosen: Form | None = None


def choose(operators: str, recipe_device: str) -> Form:
    """Keeps to the form of a recipe (`launch.operators`) in this process and those it starts.

    Raises:
        NotCompiledError: compiled operators are asked for and cannot be had.
    """
    global _chosen
    _chosen = form(operators, recipe_device)
    os.environ[CHOICE] = _chosen.name
    return _chosen


def current() -> Form:
    """The form of this process: what `choose` chose, else what CHOICE says, else what can be had."""
    return _chosen if _chosen and _chosen.name == os.environ.get(CHOICE) else form()


def form(operators: str = AUTO, recipe_device: str = "CPU") -> Form:
    """What a recipe's `launch.operators` and `launch.device` mean on this machine.

    `auto`: what the variable CHOICE says, else the compiled ones where there is a compiler. A recipe for Ascend has
    MindSpore's, also where a CPU computes it, so that its results are known by the same name everywhere.

    Raises:
        NotCompiledError: compiled operators are asked for and cannot be had.
    """
    if device.target() == "Ascend":
        return Form(MINDSPORE, "an Ascend card computes")
    source = "launch.operators"
    if operators == AUTO:
        if recipe_device == "Ascend":
            return Form(MINDSPORE, "launch.device is Ascend")
        operators, source = os.environ.get(CHOICE) or AUTO, CHOICE
    if operators == MINDSPORE:
        return Form(MINDSPORE, f"{source} says so")
    if operators not in (AUTO, COMPILED):
        raise compiler.NotCompiledError(f"{source} is {operators!r}: write {COMPILED} or {MINDSPORE}")
    library, why = _library()
    if library:
        return Form(COMPILED, why, library)
    if operators == COMPILED:
        raise compiler.NotCompiledError(f"{source} is {COMPILED}, and {why}; {MINDSPORE} needs no compiler")
    return Form(MINDSPORE, why)


def is_compiled() -> bool:
    """Whether this process computes with compiled operators."""
    return current().library is not None


def check_bfloat16() -> None:
    """Does nothing where this process has products that round their factors to bfloat16.

    Raises:
        NoBfloat16Error: it has none; the message says what is missing.
    """
    form = current()
    if not form.library:
        why = f"compiled operators, and MindSpore's own compute: {form.why}"
    elif missing := [name for name in compiler.BFLOAT16 if name not in compiler.instructions()]:
        why = f"a processor with {', '.join(compiler.BFLOAT16)}, and this one has no {', '.join(missing)}"
    elif not ctypes.CDLL(str(form.library)).moviegen_bfloat16():
        why = "AMX's tiles, which this system does not allow"
    else:
        return
    raise compiler.NoBfloat16Error(f"train.settings.dtype bfloat16 takes on CPU {why}; write float32")


def library() -> Path | None:
    """The library of compiled operators; None where MindSpore's own compute."""
    return current().library


def operator(name: str, shape: Callable[..., Any], outputs: int = 1) -> ops.Custom:
    """One function of the library as an operator of MindSpore; its inputs and outputs are float32.

    Args:
        shape: gives the shape of the output, or the shapes of all of them, from those of the inputs.
        outputs: how many there are.

    Raises:
        TypeError: when it is called with anything else, of which it would take the bits for float32's.
    """
    import mindspore as ms
    from mindspore import ops
    from mindspore.common.dtype import TensorType

    def dtypes(*inputs: ms.Type) -> Any:
        types = [dtype.element_type() if isinstance(dtype, TensorType) else dtype for dtype in inputs]
        if others := [dtype for dtype in types if dtype != ms.float32]:
            raise TypeError(f"the compiled operator {name} takes float32, not {', '.join(map(str, others))}")
        return ms.float32 if outputs == 1 else (ms.float32,) * outputs

    return ops.Custom(f"{library()}:{name}", shape, dtypes, "aot")


def prepare() -> None:
    """`make setup`: makes the library where there is none; says so, or why there will be none."""
    try:
        if not (found := form()).library:
            print(found.line)
    except compiler.NotCompiledError as error:
        sys.exit(f"error: {error}")


def forget() -> None:
    """Has the source, the compiler and the library looked for again."""
    global _chosen
    _chosen = None
    _library.cache_clear()


@functools.cache
def _library() -> tuple[Path | None, str]:
    """The library and the level it is made for, or None and why there is none: tried once in a process."""
    try:
        return compiler.library(), compiler.processor().level
    except compiler.NotCompiledError as error:
        return None, str(error)
