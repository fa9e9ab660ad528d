"""Weights of a network: read from the file formats they are published in, and fitted name by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter
from safetensors import safe_open

from moviegen.runs.arrays import UNREADABLE, Arrays, CheckpointError, check_fits


def load_arrays(path: Path, under: str = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file of weights: `.safetensors`, MindSpore's `.ckpt`, or `.npz`.

    None of these can hold code. PyTorch's `.pt`, `.pth` and `.bin` are pickles, which can, and are refused.

    Args:
        under: in a safetensors file that has names starting so, only they are read.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is of another kind.
    """
    readers = {".safetensors": _read_safetensors, ".ckpt": _read_ckpt, ".npz": _read_npz}
    if path.suffix not in readers:
        raise CheckpointError(
            f"{path}: {path.suffix or 'no suffix'} is not one of {', '.join(readers)}. A PyTorch pickle (.pt, .pth, "
            f".bin) can run code when it is opened, so it is not: save it with safetensors.torch.save_file first"
        )
    try:
        return readers[path.suffix](path, under)
    except UNREADABLE as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def _read_safetensors(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())  # an image model in one file also holds networks of many GB that are not asked for
        chosen = [name for name in names if name.startswith(under)] or names
        return {name: file.get_tensor(name) for name in chosen}, dict(file.metadata() or {})


def _read_ckpt(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    parameters = ms.load_checkpoint(str(path))
    return {name: parameter.astype(ms.float32).asnumpy() for name, parameter in parameters.items()}, {}


def _read_npz(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}, {}


def to_arrays(parameters: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Copies parameters to the host."""
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


def assign(parameters: Mapping[str, Parameter], arrays: Arrays, source: str, may_lack: tuple[str, ...] = ()) -> None:
    """Copies arrays into parameters of the same names and shapes.

    Args:
        source: what the arrays come from, for the message.
        may_lack: parts of names of parameters that keep their values where `arrays` has none for them.

    Raises:
        CheckpointError: names are missing, unexpected, or of another shape; the message lists them.
    """
    check_fits({name: parameter.shape for name, parameter in parameters.items()}, arrays, source, may_lack)
    for name, parameter in parameters.items():
        if name in arrays:
            parameter.set_data(ms.Tensor(np.asarray(arrays[name], parameter.asnumpy().dtype)))
