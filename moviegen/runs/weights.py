"""Weights of a network: read from the file formats they are published in, and fitted name by name."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter
from mindspore.train.checkpoint_pb2 import Checkpoint

from moviegen.runs.arrays import (
    QUANTISED,
    Arrays,
    CheckpointError,
    check_fits,
    read_whole_npz,
    readable,
    stored_metadata,
    stored_tensors,
)

UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".tmp")
CKPT_TYPES = {
    "Float64": "<f8", "Float32": "<f4", "Float16": "<f2", "BFloat16": "<u2", "Bool": "?",
    "Int64": "<i8", "Int32": "<i4", "Int16": "<i2", "Int8": "i1",
    "UInt64": "<u8", "UInt32": "<u4", "UInt16": "<u2", "UInt8": "u1",
}  # fmt: skip


def load_arrays(path: Path, under: str = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file of weights: `.safetensors`, MindSpore's `.ckpt`, or `.npz`.

    None of these can hold code. PyTorch's `.pt`, `.pth` and `.bin` are pickles, which can, and are refused.

    Args:
        under: in a safetensors file that has names starting so, only they are read.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is of another kind.
    """
    readers = {".safetensors": _read_safetensors, ".ckpt": _read_ckpt, ".npz": _read_npz}
    if path.suffix in UNFINISHED:
        raise CheckpointError(f"{path} is a download that has not finished: fetch it again")
    if path.suffix not in readers:
        raise CheckpointError(
            f"{path}: {path.suffix or 'no suffix'} is not one of {', '.join(readers)}. A PyTorch pickle (.pt, .pth, "
            f".bin) can run code when it is opened, so it is not: save it with safetensors.torch.save_file first"
        )
    return readers[path.suffix](path, under)


def _read_safetensors(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    stored = stored_tensors(path)  # an image model in one file also holds networks of many GB that are not asked for
    chosen = [name for name in stored if name.startswith(under)] or list(stored)
    return {name: stored[name].read() for name in chosen}, stored_metadata(path)


def _read_ckpt(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Not by MindSpore's own reader, which fills a tensor that is too short with zeros."""
    message = Checkpoint()
    with readable(path):
        content = path.read_bytes()
        if content[-17:-10] == b"crc_num":
            content, checksum = content[:-17], int.from_bytes(content[-10:])
            if zlib.crc32(content) != checksum:
                raise ValueError("it does not match its checksum")
        message.ParseFromString(content)
        if not message.value:
            raise ValueError("it holds no tensors")
        tensors = [value for value in message.value if value.tensor.tensor_type != "str"]  # notes are of that type
        return {
            name: _tensor_of(name, [value.tensor for value in parts])
            for name, parts in itertools.groupby(tensors, lambda value: value.tag)
        }, {}


def _tensor_of(name: str, parts: Sequence[Any]) -> np.ndarray:
    """A tensor of a `.ckpt`, which lies there in parts of 512 MB; bfloat16 and no other type becomes float32."""
    kind, shape = parts[0].tensor_type, () if parts[0].dims == [0] else tuple(parts[0].dims)
    if kind not in CKPT_TYPES:
        raise ValueError(f"{name} is {kind or 'no tensor'}: {QUANTISED}")
    values = np.frombuffer(b"".join(part.tensor_content for part in parts), CKPT_TYPES[kind])
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"{name} says it is {shape}, and holds {values.size} values")
    if kind == "BFloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape)


def _read_npz(path: Path, under: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return read_whole_npz(path), {}


def to_arrays(parameters: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Copies parameters to the host."""
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


def assign(parameters: Mapping[str, Parameter], arrays: Arrays, source: str, may_lack: tuple[str, ...] = ()) -> None:
    """Copies arrays into parameters of the same names and shapes.

    Args:
        source: what the arrays come from, for the message.
        may_lack: parts of names of parameters that keep their values where `arrays` has none for them.

    Raises:
        CheckpointError: names are missing, unexpected, of another shape or type, which the message lists; or one holds
            NaN or infinity.
    """
    check_fits({name: parameter.shape for name, parameter in parameters.items()}, arrays, source, may_lack)
    for name, parameter in parameters.items():
        if name in arrays:
            values = finite(np.asarray(arrays[name], np.float32), name, source)
            parameter.set_data(ms.Tensor(values, parameter.dtype))


def finite(values: np.ndarray, name: str, source: str) -> np.ndarray:
    """The values of the array called `name`.

    Raises:
        CheckpointError: one is NaN or infinity.
    """
    if not _is_finite(values):
        raise CheckpointError(
            f"{source}: {name} holds NaN or infinity: the file is damaged, or its training had diverged"
        )
    return values


def _is_finite(values: np.ndarray) -> bool:
    """The sum says it at once, unless it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())
