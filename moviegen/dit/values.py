"""What a transformer's weights start from, of which a rank draws or reads no more than it holds (`parallel.zero`)."""

from __future__ import annotations

import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore.common.initializer import Normal, One, Zero
from mindspore.nn.utils import no_init_parameters

from moviegen.config import DiTConfig
from moviegen.dit.model import DiT
from moviegen.dit.positions import grow_positions
from moviegen.dit.weights import read_weights
from moviegen.parallel.ulysses import UlyssesSequence, WholeSequence
from moviegen.runs.arrays import StoredTensor, check_fits
from moviegen.runs.weights import finite


def declared(
    config: DiTConfig, sequence: WholeSequence | UlyssesSequence | None = None, dtype: ms.Type = ms.float32
) -> DiT:
    """A transformer whose weights have shapes and no values yet: those take no memory. See `DiT`."""
    with no_init_parameters():
        return DiT(config, sequence, dtype)


class Drawn:
    """Random weights, as the layers of a declared transformer ask for them; the same on any number of ranks.

    Each run of BLOCK values has a generator of its own, which follows from seed, weight and place.
    """

    BLOCK = 1 << 20

    def __init__(self, dit: DiT, seed: int) -> None:
        self.seed = seed
        self.starts = {name: weight.init_mode.init for name, weight in dit.parameters_and_names()}
        self.sizes = {name: int(np.prod(weight.shape)) for name, weight in dit.parameters_and_names()}

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray:
        """Values `start` to `stop` of the flat weight, float32."""
        init = self.starts[name]
        if isinstance(init, Zero | One):
            return np.full(stop - start, isinstance(init, One), np.float32)
        assert isinstance(init, Normal)
        values = np.empty(stop - start, np.float32)
        for block in range(start // self.BLOCK, -(-stop // self.BLOCK)):
            first = block * self.BLOCK
            drawn = self._block(name, block, min(self.BLOCK, self.sizes[name] - first))
            begin, end = max(start, first), min(stop, first + drawn.size)
            values[begin - start : end - start] = drawn[begin - first : end - first] * np.float32(init.sigma)
        return values

    def _block(self, name: str, block: int, size: int) -> np.ndarray:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), block]).standard_normal(size, np.float32)


class Stored:
    """The weights of a file, see `load_weights`; of a safetensors file only what is asked for is read.

    Args:
        grow: stretch position tables that are smaller than the transformer's.

    Raises:
        CheckpointError: as `load_weights`; where a value is NaN or infinity, when it is asked for.
    """

    def __init__(self, dit: DiT, path: Path, grow: bool = False) -> None:
        arrays = read_weights(path)
        self.path, self.arrays = path, grow_positions(arrays, dit.config.max_size) if grow else arrays
        check_fits({name: weight.shape for name, weight in dit.parameters_and_names()}, self.arrays, str(path))

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray:
        """Values `start` to `stop` of the flat weight, float32."""
        array = self.arrays[name]
        if isinstance(array, StoredTensor):
            values = array.flat(start, stop)
        else:
            values = np.asarray(array).reshape(-1)[start:stop].astype(np.float32)
        return finite(values, name, str(self.path))
