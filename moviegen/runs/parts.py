"""Arrays of an `.npz` that are written and read part by part along their second axis: they need not fit the memory.

Such an array is (C, T, ...) of float32; a part has some of its T. The files are those that `np.savez` writes.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import ArrayLike

from moviegen.runs.arrays import array_of, npz, read_member, readable
from moviegen.runs.files import replacing

FLOAT32 = np.dtype("<f4")
Put = Callable[[int, Mapping[str, np.ndarray]], None]


@dataclass(frozen=True)
class StoredParts:
    """An array (C, T, ...) of an `.npz`, whose values are read when a part is asked for."""

    file: Path
    offset: int  # of the first value, in bytes
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """(C, stop - start, ...).

        Raises:
            CheckpointError: the file is not what it was.
        """
        channels, length, *rest = self.shape
        each = math.prod(rest)
        parts = np.empty((channels, stop - start, *rest), self.dtype)
        with readable(self.file), self.file.open("rb") as file:
            for channel, part in enumerate(parts):
                file.seek(self.offset + (channel * length + start) * each * self.dtype.itemsize)
                part[:] = np.fromfile(file, self.dtype, part.size).reshape(part.shape)
        return parts


@dataclass(frozen=True)
class HeldParts:
    """The same of an array that is held."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, T, ...)."""
        return self.values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        """(C, stop - start, ...)."""
        return self.values[:, start:stop]


Parts = StoredParts | HeldParts


def stored_parts(path: Path, name: str) -> Parts:
    """An array of an `.npz`, whose checksum is compared; what is compressed, or not in C's order, is read and held.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it lacks the array.
    """
    with readable(path), npz(path) as archive:
        member, array = archive.getinfo(f"{name}.npy"), array_of(archive, f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED or array.is_fortran:
            return HeldParts(read_member(archive, f"{name}.npy"))
        with archive.open(member) as file:  # to its end, where zipfile compares the checksum
            while file.read(2**20):
                pass
        with path.open("rb") as file:
            file.seek(member.header_offset + 26)
            sizes = np.fromfile(file, "<u2", 2)  # of the name and of the extra field, after 30 bytes of header
        start = member.header_offset + 30 + int(sizes.sum()) + array.header
        return StoredParts(path, start, array.shape, array.dtype)


@contextmanager
def npz_in_parts(path: Path, shapes: Mapping[str, tuple[int, ...]], **others: ArrayLike) -> Iterator[Put]:
    """Writes an `.npz` whole or not at all, arrays of float32 part by part.

    Args:
        shapes: theirs, by name: (C, T, ...).
        others: arrays that are there already.

    Yields:
        `put(start, parts)`, which takes the next parts by name, (C, t, ...) from place `start` of T on.
    """
    with replacing(path) as temporary, ExitStack() as stack:
        values = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in shapes}

        def put(start: int, parts: Mapping[str, np.ndarray]) -> None:
            for name, part in parts.items():
                _put(values[name], shapes[name], start, part)

        yield put
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in others.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            for name, shape in shapes.items():
                header = {"descr": FLOAT32.str, "fortran_order": False, "shape": shape}
                values[name].seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(values[name], member)


def _put(file: IO[bytes], shape: tuple[int, ...], start: int, parts: np.ndarray) -> None:
    each = math.prod(shape[2:])
    for channel, part in enumerate(parts):
        file.seek((channel * shape[1] + start) * each * FLOAT32.itemsize)
        file.write(np.ascontiguousarray(part, FLOAT32).data)
