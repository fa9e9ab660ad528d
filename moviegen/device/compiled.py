"""Which operators compute on the CPU: the compiled ones of `operators.cpp`, or MindSpore's own."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import ops

SOURCE = Path(__file__).with_name("operators.cpp")
FLAGS = ("-O3", "-std=c++20", "-march=x86-64-v4", "-mprefer-vector-width=512", "-fopenmp-simd", "-fno-math-errno",
         "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden", "-shared", "-fPIC", "-pthread")  # fmt: skip


@functools.cache
def library() -> Path | None:
    """The library of compiled operators; None where MindSpore's own compute."""
    if os.environ.get("MOVIEGEN_OPERATORS") == "mindspore":
        return None
    name = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    path = Path(sys.prefix, "share", "moviegen", f"operators-{name}.so")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.so")
        subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(part)], check=True)
        part.replace(path)
    return path


def is_compiled() -> bool:
    """Whether this process computes with compiled operators."""
    return library() is not None


def operator(name: str, shape: Callable[..., Any], outputs: int = 1) -> ops.Custom:
    """One function of the library as an operator of MindSpore; its outputs are float32.

    Args:
        shape: gives the shape of the output, or the shapes of all of them, from those of the inputs.
        outputs: how many there are.
    """
    import mindspore as ms
    from mindspore import ops

    dtypes = ms.float32 if outputs == 1 else (ms.float32,) * outputs
    return ops.Custom(f"{library()}:{name}", shape, lambda *_: dtypes, "aot")
