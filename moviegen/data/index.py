"""`index.csv` of a cache: shape, type and bytes of each file's array, noted while the files are written.

Who starts to train reads this one file. Rank 0 looks for all whether the files on the disk are as large as it says;
what is in them is held against the checksums of their archives when they are read. A folder that was made elsewhere may
have no index: then rank 0 reads headers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen.config import ConfigError
from moviegen.data.reading import in_threads
from moviegen.runs.arrays import npz_headers
from moviegen.runs.files import write_csv

INDEX = "index.csv"
COLUMNS = ("name", "file", "shape", "dtype", "bytes")


@dataclass(frozen=True)
class Stored:
    """An array in a file of `size` bytes."""

    shape: tuple[int, ...]
    dtype: str
    size: int

    @property
    def row(self) -> tuple[str, str, int]:
        """As an index has it."""
        return "x".join(map(str, self.shape)), self.dtype, self.size


@dataclass(frozen=True)
class Cache:
    """A folder of arrays, and its index where it has one.

    Args:
        looks: whether this process looks at the files themselves: one of a job does, for all.
        mend: what to do with files that are not as the index says, for messages.
    """

    folder: Path
    index: Mapping[str, Stored] | None
    looks: bool
    mend: str

    @classmethod
    def of(cls, folder: Path, mend: str, looks: bool = True) -> Cache:
        """A folder with its index, which is read."""
        return cls(folder, read_index(folder), looks, mend)

    def has(self, path: Path) -> bool:
        """Whether a file is there, by the index if there is one."""
        return path.is_file() if self.index is None else self._name(path) in self.index

    def stored(self, paths: Iterable[Path], *arrays: str) -> dict[Path, tuple[tuple[int, ...], ...]]:
        """Shapes of the arrays in files: of the first by the index, of all by their headers where there is none.

        Nothing where there is no index and another process looks.

        Raises:
            ConfigError: a file is damaged, or of another size than the index says.
        """
        if self.index is None:
            found = in_threads(lambda path: npz_headers(path, *arrays, mend=self.mend), paths) if self.looks else []
            return {path: tuple(shape for shape, _ in headers) for path, headers in zip(paths, found, strict=False)}
        known = {path: self.index[self._name(path)] for path in paths}
        if self.looks:
            for path, size in zip(known, in_threads(_size, known), strict=True):
                if size != known[path].size:
                    state = "is missing" if size is None else f"has {size} bytes"
                    raise ConfigError(f"{path} {state}, and {self.folder / INDEX} says {known[path].size}: {self.mend}")
        return {path: (one.shape,) for path, one in known.items()}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def note(folder: Path, rank: int, path: Path, array: np.ndarray) -> None:
    """Adds a file that was just written to what a rank has noted."""
    stored = Stored(array.shape, str(array.dtype), path.stat().st_size)
    with _part(folder, rank).open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(("", path.relative_to(folder).as_posix(), *stored.row))


def join(folder: Path, names: Mapping[Path, str], array: str, mend: str) -> dict[Path, Stored]:
    """Makes one index of what all ranks have noted. What a killed rank wrote and did not note has its header read.

    Args:
        names: of the files, for readers of the table.
        array: of each file, that the index tells of.

    Returns:
        the same by file.
    """
    known = dict(read_index(folder) or {})
    parts = sorted(folder.glob("index-*.csv"))
    for part in parts:
        with part.open(newline="", encoding="utf-8") as file:
            known |= dict(_entries(csv.DictReader(file, COLUMNS)))
    found = dict(zip(names, in_threads(lambda path: _entry(path, folder, known, array, mend), names), strict=True))
    rows = [(names[path], path.relative_to(folder).as_posix(), *stored.row) for path, stored in found.items()]
    write_csv(folder / INDEX, COLUMNS, rows)
    for part in parts:
        part.unlink()
    return found


def read_index(folder: Path) -> dict[str, Stored] | None:
    """A folder's index by file; None: it has none, or one of before there were shapes in it."""
    path = folder / INDEX
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return dict(_entries(rows)) if set(COLUMNS) <= set(rows.fieldnames or ()) else None


def _entries(rows: Iterable[Mapping[str, str | None]]) -> Iterable[tuple[str, Stored]]:
    """Those of whole lines: the last one of a killed rank may not be."""
    for row in rows:
        file, shape, dtype, size = (row.get(column) or "" for column in COLUMNS[1:])
        if size.isdigit() and all(side.isdigit() for side in shape.split("x")):
            yield file, Stored(tuple(map(int, shape.split("x"))), dtype, int(size))


def _entry(path: Path, folder: Path, known: Mapping[str, Stored], array: str, mend: str) -> Stored:
    stored, size = known.get(path.relative_to(folder).as_posix()), path.stat().st_size
    if stored and stored.size == size:
        return stored
    ((shape, dtype),) = npz_headers(path, array, mend=mend)
    return Stored(shape, dtype, size)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _part(folder: Path, rank: int) -> Path:
    return folder / f"index-{rank}.csv"
