"""Arrays on disk: safetensors and `.npz`, written whole or not at all, read by name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from moviegen.config import ConfigError
from moviegen.runs.files import replacing

# what the readers of safetensors, `.ckpt` and `.npz` raise where a file is damaged, missing or of another kind
UNREADABLE = (OSError, EOFError, KeyError, SafetensorError, TypeError, ValueError, zipfile.BadZipFile)


class CheckpointError(ConfigError):
    """A file of weights that cannot be used: damaged, or of another model."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk, read when NumPy asks for its values: a whole model may be larger than the memory."""

    file: Path
    name: str
    shape: tuple[int, ...]

    def __array__(self, dtype: Any = None) -> np.ndarray:
        with safe_open(self.file, framework="numpy") as file:
            return file.get_tensor(self.name).astype(dtype or np.float32)


Arrays = Mapping[str, np.ndarray | StoredTensor]


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file by its name; none is read.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: StoredTensor(path, name, tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    except UNREADABLE as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def save_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file whole or not at all."""
    with replacing(path) as temporary:
        named = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        save_file(named, temporary, dict(metadata or {}))


def save_npz(path: Path, **arrays: ArrayLike) -> None:
    """Writes an `.npz` whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_npz(path: Path, *names: str, mend: str) -> tuple[np.ndarray, ...]:
    """Arrays of an `.npz`, in the order of `names`.

    Args:
        mend: what to do with a damaged file, for the message.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it lacks one of them.
    """
    with damage_named(path, mend), np.load(path, allow_pickle=False) as file:
        return tuple(file[name] for name in names)


def npz_shapes(path: Path, *names: str, mend: str) -> tuple[tuple[int, ...], ...]:
    """Shapes of arrays of an `.npz`, which are not read; see `read_npz`.

    Raises:
        CheckpointError: as `read_npz`.
    """
    with damage_named(path, mend), zipfile.ZipFile(path) as archive:
        return tuple(_shape_of(archive, f"{name}.npy") for name in names)


def _shape_of(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        return readers[np.lib.format.read_magic(file)](file)[0]


@contextmanager
def damage_named(path: Path, mend: str) -> Iterator[None]:
    """Raises CheckpointError where the file at `path` cannot be read, with what to do then."""
    try:
        yield
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is damaged ({error}): {mend}") from None


def check_fits(
    shapes: Mapping[str, Sequence[int]], arrays: Arrays, source: str, may_lack: tuple[str, ...] = ()
) -> None:
    """Refuses arrays that are not of these names and shapes.

    Args:
        source: what the arrays come from, for the message.
        may_lack: parts of names that need not be among the arrays.

    Raises:
        CheckpointError: names are missing, unexpected, or of another shape; the message lists them.
    """
    missing = [name for name in shapes if name not in arrays and not any(part in name for part in may_lack)]
    unexpected = [name for name in arrays if name not in shapes]
    misshapen = [
        f"{name}: {tuple(arrays[name].shape)} for {tuple(shape)}"
        for name, shape in shapes.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(shape)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{source} does not fit the model: {listed}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
