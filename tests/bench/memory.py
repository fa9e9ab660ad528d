"""Peak memory of decoding a clip whole and in temporal tiles: `python -m tests.bench.memory whole 64` is one case."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import config, device
from moviegen.runs.machine import peak_memory

LENGTHS = (64, 128, 256)
SIDE = 64
WAYS = ("whole", "tiles")


def decoded(way: str, latent: np.ndarray, frames: int) -> Iterable[np.ndarray]:
    """The clip's pieces; they are dropped as they come, as by a program that writes a file."""
    import mindspore as ms

    from moviegen.config import Tiling
    from moviegen.tae.model import Decode
    from moviegen.tae.tiling import decode_tiles
    from tests.bench.ours import random_tae

    tae = random_tae(config.load("tiny").tae.model.model_dump())
    if way == "tiles":
        return decode_tiles(Decode(tae), latent, frames, Tiling())
    return (Decode(tae, frames)(ms.Tensor(latent)).asnumpy() for _ in range(1))


def child(way: str, frames: int) -> dict[str, Any]:
    """Decodes once, in this process alone."""
    device.start(0)
    latent = np.random.default_rng(0).standard_normal((1, 16, frames // 8, SIDE // 8, SIDE // 8)).astype(np.float32)
    pieces = decoded(way, latent, frames)
    before, started = peak_memory(), time.perf_counter()
    produced = sum(piece.shape[2] for piece in pieces)
    assert produced == frames
    return {"before_bytes": before, "peak_bytes": peak_memory(), "seconds": time.perf_counter() - started}


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each length; memory is not a matter of chance, so nothing is repeated."""
    rows = []
    with tqdm(total=len(LENGTHS) * len(WAYS), desc="memory", unit="clip") as progress:
        for frames in LENGTHS:
            row: dict[str, Any] = {"clip": f"1x3x{frames}x{SIDE}x{SIDE}"}
            for way in WAYS:
                command = (sys.executable, "-m", "tests.bench.memory", way, str(frames))
                result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
                row |= {
                    f"{way}_peak_mb": result["peak_bytes"] / 1e6,
                    f"{way}_grown_mb": (result["peak_bytes"] - result["before_bytes"]) / 1e6,
                    f"{way}_with_compile_s": result["seconds"],
                }
                progress.update()
            rows.append(row)
    return rows


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], int(sys.argv[2]))))
