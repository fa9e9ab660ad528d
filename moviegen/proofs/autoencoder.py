"""What a CPU can tell of the autoencoder's training on cards: its memory by its graphs, and what rounding costs it.

    python -m moviegen.proofs.autoencoder '{"measured": "graph", ...}'

`graph`: MindSpore's passes over a training step run as they do for a card, whose form the layers take; the step's
tensors are counted in the text of that graph. Looking for a CPU's kernels, which comes after, is cut off. `rounding`:
the autoencoder's weights, and what every layer gives, are rounded to bfloat16; between them it computes in float32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen import device
from moviegen.config import Optimizer, Params, TAEConfig, TAELoss, latent_size, load, merge, weights_file
from moviegen.device import attention, compiled, updates, video
from moviegen.device.graph_memory import peak
from moviegen.device.graph_text import LAST_PASS, dump_environment
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.plan.tae_memory import tae_training_memory
from moviegen.proofs.proof import Proof, within
from moviegen.tae.layers import Projection
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.model import TAE, Reconstruct
from moviegen.tae.weights import load_weights
from moviegen.train.optim import AdamW
from moviegen.train.step import Step

MINIATURE = {"base_channels": 16, "num_groups": 4, "num_res_blocks": 1, "channel_multipliers": [1, 2, 4, 4]}
CLIPS = ((8, 64, 64), (16, 64, 64))  # frames, H, W: the same graph, so as long to compile
GB = 1e9
LAYERS = (video.Convolution, video.TemporalConvolution, video.GroupNorm, attention.Attention, Projection)


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """The memory of a step for each pixel and frame, and what bfloat16 costs a reconstruction."""
    full = tae_training_memory(load("5B"), "opl-off").total
    found = [measured({"measured": "graph", "clip": clip}, folder)["bytes"] for clip in CLIPS]
    foretold = [miniature_bytes(params, clip) for clip in CLIPS]
    predicted = slope(foretold)
    lowest, highest = within(predicted, 0.1)
    yield Proof(
        claim=f"The autoencoder trains on 32 frames of 256x256 within a card: {full / GB:.0f} GB by the plan.",
        quantity="kB that each further pixel of a frame takes in a training step's graph in a card's form, in bfloat16 "
        f"with every residual block recomputed, an eighth as wide, from {CLIPS[0][0]} to {CLIPS[1][0]} frames of 64x64",
        measured=slope(found), predicted=predicted, lowest=lowest, highest=highest, unit="kB",
    )  # fmt: skip
    shipped = {"weights": params.tae.start_checkpoint, "config": params.tae.model.model_dump()}
    alike = measured({"measured": "rounding", **shipped}, folder)["psnr"]
    yield Proof(
        claim="In bfloat16 the autoencoder reconstructs as it does in float32.",
        quantity="PSNR of the shipped autoencoder's reconstruction of 8 frames of 64x64, its weights and what each "
        "layer gives rounded to bfloat16, against the one in float32: far more than either has against the clip",
        measured=alike, predicted=None, lowest=35.0, highest=100.0, unit="dB",
    )  # fmt: skip


def miniature_bytes(params: Params, clip: tuple[int, int, int]) -> int:
    """What the plan foretells of a step of the miniature on a card, beyond its state."""
    changes = {
        "tae": {
            "model": MINIATURE,
            "loss": {"perceptual": 0.0},
            "video": {"batch_size": 1, "frames": clip[0], "size": clip[1:], "recompute_every_nth_block": 1},
        },
        "launch": {"device": "Ascend"},
    }
    memory = tae_training_memory(Params.model_validate(merge(params.model_dump(), changes)), "opl-off")
    return memory.total - memory.state


def slope(sizes: list[int]) -> float:
    """kB a pixel and frame, from the bytes of both clips."""
    fewer, more = (int(np.prod(clip)) for clip in CLIPS)
    return (sizes[1] - sizes[0]) / (more - fewer) / 1e3


def measured(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a process of its own finds."""
    with tempfile.TemporaryDirectory(dir=folder) as dumped:
        environment = {compiled.CHOICE: compiled.MINDSPORE} | dump_environment(Path(dumped))
        command = [sys.executable, "-m", "moviegen.proofs.autoencoder", json.dumps({**case, "folder": dumped})]
        started = os.environ | (environment if case["measured"] == "graph" else {})
        done = subprocess.run(command, capture_output=True, text=True, env=started, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---- the process that measures


def graph(case: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of a training step's tensors where they are most; weights and inputs are none of them."""
    for module in (attention, updates, video):
        vars(module)["target"] = lambda: "Ascend"  # Cells take a card's form when they are made
    config, clip, rng = TAEConfig.model_validate(MINIATURE), case["clip"], np.random.default_rng(0)
    tae = TAE(config)
    tae.compute_in(ms.bfloat16)
    tae.recompute_blocks(1)
    zero = Zero(tae, 0, World())
    loss = TAETrainingLoss(tae, TAELoss(), None, has_outlier_penalty=False)
    step = Step(loss, zero, AdamW(zero.masters, Optimizer(), zero.shapes), 1, 1.0, has_terms=True)
    noise = rng.standard_normal((1, config.latent_channels, *latent_size(*clip)), np.float32)
    batch = ms.Tensor(rng.uniform(-1, 1, (1, 3, *clip)).astype(np.float32)), ms.Tensor(noise)
    threading.Thread(target=_compiled, args=(step, batch), daemon=True).start()
    return {"bytes": peak(_written(Path(case["folder"])))}


def _compiled(step: Step, batch: tuple[ms.Tensor, ...]) -> None:
    try:
        step.compile(batch)
    except (RuntimeError, TypeError):  # no kernel on this CPU; the graph has been written by then
        return


def _written(folder: Path) -> Path:
    """The graph after its last pass, as soon as it is whole."""
    size = 0
    while True:
        time.sleep(1)
        found = sorted(folder.glob(f"**/{LAST_PASS}_graph_*.ir"))
        if found and size == (size := found[0].stat().st_size) > 0:
            return found[0]


def rounded(array: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each number, ties to even, as float32."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def rounding(case: Mapping[str, Any]) -> dict[str, float]:
    """PSNR (dB) of a moving pattern's reconstruction with rounding, against the one without."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    tae = TAE(TAEConfig.model_validate(case["config"]))
    load_weights(tae, weights_file("tae.start_checkpoint", case["weights"]))
    clip = ms.Tensor(pattern((8, 64, 64)))
    exact = Reconstruct(tae)(clip).asnumpy()
    for parameter in tae.get_parameters():
        parameter.set_data(ms.Tensor(rounded(parameter.asnumpy())))
    for _, cell in tae.cells_and_names():
        if isinstance(cell, LAYERS):
            cell.register_forward_hook(_round)
        if isinstance(cell, video.GroupNorm):
            cell.__dict__["beside"] = partial(_round_beside, cell.beside)
    return {"psnr": psnr(Reconstruct(tae)(clip).asnumpy(), exact)}


def _round(cell: nn.Cell, inputs: tuple[ms.Tensor, ...], output: ms.Tensor) -> ms.Tensor:
    del cell, inputs
    return ms.Tensor(rounded(output.asnumpy()))


def _round_beside(
    beside: Callable[[ms.Tensor, int], tuple[ms.Tensor, ms.Tensor]], x: ms.Tensor, num_frames: int
) -> tuple[ms.Tensor, ms.Tensor]:
    normed, x = beside(x, num_frames)
    return ms.Tensor(rounded(normed.asnumpy())), x


def pattern(size: tuple[int, int, int]) -> np.ndarray:
    """Waves of three colours that move: float32 (1, 3, T, H, W) in [-1, 1]."""
    t, y, x = (np.arange(length, dtype=np.float32) for length in size)
    waves = [
        np.sin(0.1 * (k + 1) * x[None, None] + 0.07 * (k + 2) * y[None, :, None] + 0.3 * t[:, None, None])
        for k in range(3)
    ]
    return 0.8 * np.stack(waves)[None].astype(np.float32)


def psnr(restored: np.ndarray, original: np.ndarray) -> float:
    """In dB, of numbers in [-1, 1]."""
    return float(10 * np.log10(4 / np.mean(np.square(np.clip(restored, -1, 1) - original))))


def main(case: Mapping[str, Any]) -> None:
    """Prints what it finds; a compilation that still goes on is left."""
    device.start(0)
    print(json.dumps({"graph": graph, "rounding": rounding}[case["measured"]](case)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
