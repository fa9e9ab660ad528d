"""What encoding and decoding in tiles holds: as much as a tile and some frames, whatever the clip's length and size.

`python -m moviegen.proofs.tiles memory ...` and `... program ...` are the measurements, each in a process of its own.
"""

from __future__ import annotations

import runpy
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import config, device
from moviegen.config import Params, TAEConfig, Tiling, latent_size
from moviegen.data.pixels import tiles_of
from moviegen.data.videos import write_video
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.plan.tae_memory import tae_decoding_memory, tae_encoding_memory
from moviegen.proofs.proof import Proof, within
from moviegen.runs.files import read_json, write_json
from moviegen.runs.machine import memory_growth, peak_memory
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.tiling import decode_tiles, encode_tiles
from moviegen.tae.weights import save_tae

MIB = 2.0**20
TILING = Tiling(size=(128, 128), overlap=32)
# T, H, W of clips: four tiles of a frame and nine, and one of longer clips; a process that is at its second tile still
# holds the first one's frames, so none is of one tile alone
CLIPS = ((32, 224, 224), (32, 320, 320), (64, 128, 128), (128, 128, 128))
SMALL = (8, 32, 32)
# of what takes minutes with a wider network, and is of files and frames
NARROW = TAEConfig(base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2)
HD = (1080, 1920)
HD_FRAMES = (32, 64, 96)  # of one window; of several, from which on nothing grows
HD_TILES = ("--tae.tiling.size", "[192, 192]", "--tae.tiling.overlap", "32")
MOST = 2e9 / MIB  # that a minute of 1080p may take: 2 GB


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """Memory of clips of growing sizes and lengths in equal tiles, and of the programs on 1080p of growing lengths."""
    path = folder / "params.yaml"
    write_json(path, params.model_dump(mode="json"))
    for way in ("encode", "decode"):
        found = {}
        for clip in CLIPS:
            arguments = ("memory", str(path), way, *map(str, clip))
            found[clip] = _child(folder, f"{way}-{'x'.join(map(str, clip))}", arguments)["growth"]
            if found[clip] is not None:
                yield memory_proof(params, way, clip, found[clip], found[CLIPS[0]])
    yield from _programs(folder, path)


def memory_proof(params: Params, way: str, clip: tuple[int, int, int], growth: float, first: float) -> Proof:
    """A process that grew by so many bytes while it encoded or decoded a clip.

    Larger and longer clips are held against the first, which is held against the plan: that counts no work space of
    operators, so it is a lower bound.
    """
    plan = foretold(params, way, CLIPS[0])
    predicted = (first + foretold(params, way, clip) - plan if clip != CLIPS[0] else plan) / MIB
    lowest, highest = within(predicted, 0.1) if clip != CLIPS[0] else (predicted, 1.5 * predicted)
    return Proof(
        claim="what a card holds to encode or decode is a tile, whatever the clip's length and size",
        quantity=f"memory to {way} {'x'.join(map(str, clip))} in tiles of 32x128x128",
        measured=growth / MIB,
        predicted=predicted,
        lowest=lowest,
        highest=highest,
        unit="MiB",
    )


def foretold(params: Params, way: str, clip: tuple[int, int, int]) -> int:
    """Bytes beyond the weights: a tile's, by the plan, and what the host holds of whole frames.

    Those are float32 pictures of a tile's frames to decode; to encode the clip is there before, and latents are small.
    """
    tile = TILING.largest(*clip)
    counted = (tae_encoding_memory if way == "encode" else tae_decoding_memory)(params, tile)
    frames = 3 * 4 * tile[0] * clip[1] * clip[2] if way == "decode" else 0
    return counted.total - counted.parts["weights"] + frames


def _programs(folder: Path, params: Path) -> Iterator[Proof]:
    """`tae encode` and `tae decode` as they are started, on files."""
    weights = folder / "narrow.safetensors"
    _child(folder, "weights", ("weights", str(weights)))
    peaks: dict[str, list[float]] = {"encode": [], "decode": []}
    for frames in HD_FRAMES:
        video, latent, again = (folder / f"{frames}{suffix}" for suffix in (".mp4", ".npz", "-again.mp4"))
        write_video(video, moving(frames, *HD), 24)
        for way, source, target in (("encode", video, latent), ("decode", latent, again)):
            words = ("tae", way, "--config", str(params), "--weights", str(weights), "--input", str(source),
                     "--output", str(target), *HD_TILES)  # fmt: skip
            peaks[way].append(_child(folder, f"{way}-{frames}", ("program", *words))["peak"] / MIB)
            yield Proof(
                claim="a minute of 1080p is encoded and decoded in less than 2 GB",
                quantity=f"peak memory of `tae {way}` on {frames} frames of {HD[1]}x{HD[0]}, with a narrow autoencoder",
                measured=peaks[way][-1],
                predicted=None,
                lowest=0,
                highest=MOST,
                unit="MiB",
            )
    for way, found in peaks.items():
        yield Proof(
            claim="memory to encode and decode does not grow with the length of a film",
            quantity=f"peak memory of `tae {way}` on {HD_FRAMES[-1]} frames, over that on {HD_FRAMES[-2]}",
            measured=found[-1] / found[-2],
            predicted=1,
            lowest=0.95,
            highest=1.05,
        )


def moving(frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Colours that move, uint8 (H, W, 3) each."""
    rows, columns = np.mgrid[:height, :width]
    for time in range(frames):
        colours = (columns + 4 * time, rows + 2 * time, (rows + columns) // 2 + time)
        yield np.stack(colours, -1).astype(np.uint8)


def _child(folder: Path, name: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """What a process of its own measures."""
    output = folder / f"{name}.json"
    command = ("python", "-m", "moviegen.proofs.tiles", str(output), *arguments)
    run_job(Job(command=command, log_dir=folder / f"log-{name}"))
    return read_json(output, "run it again")


# ---- in the processes that measure


def growth(params: Params, way: str, clip: tuple[int, int, int]) -> int | None:
    """Bytes by which this process grows while it encodes or decodes a clip, its graph being compiled before.

    It has encoded or decoded a few small frames by then: weights and threads are there, which no clip's size asks for.
    """
    device.start(params.seed, params.launch)
    tae, tile = TAE(params.tae.model), TILING.largest(*clip)
    rng, channels = np.random.default_rng(0), params.tae.model.latent_channels
    if way == "encode":
        encode = Encode(tae)
        encode(ms.Tensor(np.zeros((1, 3, *SMALL), np.float32)))[0].asnumpy()
        encode.compile(ms.Tensor(np.zeros((1, 3, *tile), np.float32)))
        spans = TILING.encoded(clip[0])
        frames = rng.integers(0, 256, (*clip, 3), dtype=np.uint8)
        windows = (tiles_of(list(frames[slice(*span)])) for span in spans)
        return memory_growth(lambda: deque(encode_tiles(encode, windows, clip[1:], TILING), maxlen=0))
    decode = Decode(tae)
    decode(ms.Tensor(np.zeros((1, channels, *latent_size(*SMALL)), np.float32))).asnumpy()
    decode.compile(ms.Tensor(np.zeros((1, channels, *latent_size(*tile)), np.float32)))
    latent = rng.standard_normal((1, channels, *latent_size(*clip)), np.float32)
    return memory_growth(lambda: deque(decode_tiles(decode, latent, clip[0], TILING), maxlen=0))


def run_program(words: list[str]) -> int:
    """Runs `python -m moviegen` here; returns this process's peak in bytes."""
    sys.argv = ["moviegen", *words]
    try:
        runpy.run_module("moviegen", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    return peak_memory()


def main(output: str, kind: str, *words: str) -> None:
    """One measurement, to a file."""
    found: dict[str, float | None] = {}
    if kind == "weights":
        device.start(0)
        save_tae(Path(words[0]), TAE(NARROW))
    elif kind == "memory":
        frames, height, width = map(int, words[2:])
        found["growth"] = growth(config.load(words[0]), words[1], (frames, height, width))
    else:
        found["peak"] = run_program(list(words))
    write_json(Path(output), found)


if __name__ == "__main__":
    main(*sys.argv[1:])
