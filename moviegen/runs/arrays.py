"""Arrays on disk: safetensors and `.npz`, written whole or not at all, read by name."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from safetensors import safe_open

from moviegen.config import ConfigError
from moviegen.runs.files import flush, replacing
from moviegen.runs.folders import listed
from moviegen.runs.signatures import what_weights_are

FLOATS = ("F16", "BF16", "F32", "F64")  # what weights are, by safetensors' names
INTEGERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")  # counts, and the weights of quantised models
QUANTISED = "Weights are read as float64, float32, float16 or bfloat16: take those, not a quantised model's"
# what bitsandbytes, GPTQ, AWQ and float8 models hold beside their weights
QUANTISED_NAMES = (
    "SCB", "absmax", "quant_map", "qweight", "qzeros", "scales", "g_idx", "weight_scale", "scale_weight",
    "weight_scale_inv", "scaled_fp8", "weight_format", "input_scale", "bitsandbytes__nf4", "bitsandbytes__fp4",
)  # fmt: skip
# what wrappers for training, distribution and compilation put before the name of every tensor
WRAPPERS = ("module.", "network.", "_forward_module.", "_orig_mod.", "model.", "_backbone.")
NAMES = {  # safetensors' of NumPy's types, in the order in which the library lays tensors out
    "uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32",
    "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
PIECE = 16 * 2**20  # bytes that are hashed and written at a time
# of an `.npz`, so that a small file cannot fill the memory: bytes it may always unpack into, and times its own size
MAX_UNPACKED, MAX_RATIO = 256 * 2**20, 100


class CheckpointError(ConfigError):
    """A file of weights that cannot be used: damaged, or of another model."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk, read when NumPy asks for its values: a whole model may be larger than the memory.

    Its `dtype` is safetensors' name of it. Values come as float32 where no other type is asked for.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return self.read().astype(dtype or np.float32)

    def read(self) -> np.ndarray:
        """The values as they are stored, but bfloat16 as float32.

        Raises:
            CheckpointError: they are of a type that is not read, or the file is damaged.
        """
        if self.dtype not in FLOATS + INTEGERS:
            raise CheckpointError(f"{self.file}: {self.name} is {self.dtype}: {QUANTISED}")
        with readable(self.file), safe_open(self.file, framework="numpy") as file:
            values = file.get_tensor(self.name)
            return values.astype(np.float32) if self.dtype == "BF16" else values

    @property
    def numpy_dtype(self) -> np.dtype:
        """What `rows` gives."""
        return np.dtype(next(numpy for numpy, name in NAMES.items() if name == self.dtype))

    def flat(self, start: int, stop: int) -> np.ndarray:
        """Values `start` to `stop` of all, one row after the other, float32; other rows are not read.

        Raises:
            CheckpointError: as `read`.
        """
        if len(self.shape) < 2 or self.dtype not in FLOATS:
            return np.asarray(self).reshape(-1)[start:stop]
        row = math.prod(self.shape[1:])
        first, last = start // row, -(-stop // row)
        return self.rows(first, last).reshape(-1)[start - first * row : stop - first * row].astype(np.float32)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Those of the first axis from `start` to before `stop`, as they are stored; nothing else is read.

        Raises:
            CheckpointError: the file is damaged.
        """
        with readable(self.file), safe_open(self.file, framework="numpy") as file:
            return file.get_slice(self.name)[start:stop]


@dataclass(frozen=True)
class StoredArray:
    """An array whose flat intervals lie in several files, each a vector there; read when NumPy asks for its values.

    Args:
        pieces: (where in the flat array it begins, the vector), in order and without a gap.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: tuple[tuple[int, StoredTensor], ...]

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return self.interval(0, math.prod(self.shape)).reshape(self.shape).astype(dtype or self.dtype, copy=False)

    def interval(self, start: int, stop: int) -> np.ndarray:
        """The flat array's numbers from `start` to before `stop`; no others are read.

        Raises:
            CheckpointError: a file is damaged.
        """
        found = np.empty(stop - start, self.dtype)
        for first, stored in self.pieces:
            low, high = max(start, first), min(stop, first + stored.shape[0])
            if low < high:
                found[low - start : high - start] = stored.rows(low - first, high - first)
        return found


Arrays = Mapping[str, np.ndarray | StoredTensor | StoredArray]
Tensor = TypeVar("Tensor")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises CheckpointError where the file of weights at `path` cannot be read, and says what it is if that is known.

    It catches every Exception: six libraries read files of weights, and none documents all that it raises.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        kind = what_weights_are(path)
        again = ". It is damaged, or its download stopped" if path.is_file() else ""
        raise CheckpointError(f"cannot read {path}: {f'it is {kind}' if kind else f'{error}{again}'}") from None


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file by its name; none is read.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    with readable(path), safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: StoredTensor(path, name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
        }


def stored_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    with readable(path), safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their names without the prefixes that wrappers of a network put before all of them.

    PyTorch's compiler puts `_orig_mod.` before some names and inside others: it is taken out of each.
    """
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    while prefix := next((word for word in WRAPPERS if tensors and all(name.startswith(word) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def save_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file whole or not at all; of arrays on disk one at a time is in memory."""
    with replacing(path) as temporary:
        write_tensors(temporary, arrays, metadata)


def write_tensors(
    path: Path,
    arrays: Arrays,
    metadata: Mapping[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda written: None,
) -> str:
    """Writes a safetensors file array by array, as the library itself lays it out; each is asked for in its turn.

    Args:
        on_bytes: told the size of each piece that was written.

    Returns:
        SHA-256 of the file, in hexadecimal, taken while it was written.
    """
    types = {name: _numpy_type(array) for name, array in arrays.items()}
    order = sorted(arrays, key=lambda name: (list(NAMES).index(types[name].name), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + math.prod(arrays[name].shape) * types[name].itemsize
        shape = list(arrays[name].shape)
        header[name] = {"dtype": NAMES[types[name].name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    content = hashlib.sha256()
    with path.open("wb") as file:

        def put(piece: bytes | memoryview) -> None:
            content.update(piece)
            on_bytes(file.write(piece))

        put(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = np.asarray(arrays[name], types[name], order="C").reshape(-1)
            numbers = PIECE // types[name].itemsize
            for start in range(0, flat.size, numbers):
                put(flat[start : start + numbers].data)
        file.flush()
        flush(file.fileno())
    return content.hexdigest()


def _numpy_type(array: np.ndarray | StoredTensor | StoredArray) -> np.dtype:
    """That it is written in: of a tensor on disk, what NumPy makes of it."""
    return np.dtype(np.float32) if isinstance(array, StoredTensor) else array.dtype


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
    with _damage_named(path, mend), npz(path) as archive:
        return tuple(read_member(archive, f"{name}.npy") for name in names)


def read_whole_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an `.npz` by its name.

    Raises:
        CheckpointError: as `read_npz`.
    """
    with readable(path), npz(path) as archive:
        return {name.removesuffix(".npy"): read_member(archive, name) for name in archive.namelist()}


def npz_headers(path: Path, *names: str, mend: str) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shapes and types of arrays of an `.npz`, which are not read; see `read_npz`.

    Raises:
        CheckpointError: as `read_npz`.
    """
    with _damage_named(path, mend), npz(path) as archive:
        headers = [array_of(archive, f"{name}.npy") for name in names]
        return tuple((header.shape, str(header.dtype)) for header in headers)


@contextmanager
def npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """An `.npz` to read; ValueError where it would unpack into far more than any arrays do."""
    with zipfile.ZipFile(path) as archive:
        size, packed = sum(member.file_size for member in archive.infolist()), path.stat().st_size
        if size > MAX_UNPACKED and size > MAX_RATIO * packed:
            raise ValueError(f"it says that its {packed} bytes unpack into {size}, which no arrays do")
        yield archive


def read_member(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """An array of an `.npz`; ValueError as `array_of`."""
    array_of(archive, member)  # before NumPy makes room for it
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


class NpyHeader(NamedTuple):
    """What an array of an `.npz` says of itself, in so many bytes before its values."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    header: int


def array_of(archive: zipfile.ZipFile, member: str) -> NpyHeader:
    """Of an array that is not read; ValueError where it says what it does not hold."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        shape, is_fortran, dtype = readers[np.lib.format.read_magic(file)](file)
        array = NpyHeader(shape, is_fortran, dtype, file.tell())
    stated, size = math.prod(array.shape) * array.dtype.itemsize, archive.getinfo(member).file_size - array.header
    if array.dtype.kind not in "biuf" or min(array.shape, default=0) < 0 or stated != size:
        raise ValueError(f"{member} says it is {array.shape} of {array.dtype}, {stated} bytes, and holds {size}")
    return array


@contextmanager
def _damage_named(path: Path, mend: str) -> Iterator[None]:
    """Raises CheckpointError where the file at `path` cannot be read, with what to do then."""
    try:
        yield
    except Exception as error:  # zipfile's and NumPy's own, and those of what they use: zlib, tokenize, ast
        raise CheckpointError(f"{path} is damaged ({error}): {mend}") from None


def check_fits(
    shapes: Mapping[str, Sequence[int]], arrays: Arrays, source: str, may_lack: tuple[str, ...] = ()
) -> None:
    """Refuses arrays that are not of these names and shapes, or not of floating point.

    Args:
        source: what the arrays come from, for the message.
        may_lack: parts of names that need not be among the arrays.

    Raises:
        CheckpointError: names are missing, unexpected, of another shape or type; the message lists them.
    """
    missing = [name for name in shapes if name not in arrays and not any(part in name for part in may_lack)]
    unexpected = [name for name in arrays if name not in shapes]
    misshapen = [
        f"{name}: {tuple(arrays[name].shape)} for {tuple(shape)}"
        for name, shape in shapes.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(shape)
    ]
    typed = [f"{name}: {arrays[name].dtype}" for name in shapes if name in arrays and not _is_float(arrays[name])]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshapen,
        "of another type": typed,
    }
    if any(problems.values()):
        problem_list = "; ".join(
            f"{len(names)} {kind}: {listed(names, 8)}" for kind, names in problems.items() if names
        )
        is_quantised = typed or any(name.endswith(QUANTISED_NAMES) for name in unexpected)
        raise CheckpointError(
            f"{source} does not fit the model: {problem_list}{f'. {QUANTISED}' if is_quantised else ''}"
        )


def _is_float(array: np.ndarray | StoredTensor | StoredArray) -> bool:
    return array.dtype in FLOATS if isinstance(array, StoredTensor) else array.dtype.kind == "f"
