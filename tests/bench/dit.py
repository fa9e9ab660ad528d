"""The transformer beside its PyTorch twin, and what Euler's method adds.

Two shapes: stage 2's of `params/tiny.yaml`, in which small products are launched one after the other, and one of 2,048
tokens, in which the arithmetic itself takes the time. The latter is also compared with the machine's own limit: the
arithmetic that `plan.flops` counts in a step, per second, over that of large matrix products by `torch.mm`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen import config
from moviegen.config import PATCH, DiTConfig, latent_size
from moviegen.plan import flops
from tests.bench import rows
from tests.bench.workers import Worker, WorkFailed, take_turns

EULER_PERCENT = 5  # what the sampler may add
EAGER, COMPILED, PEAK = "PyTorch", "torch.compile", "peak of torch.mm"
TINY, LARGE = "tiny, stage 2", "8 x 384, 2,048 tokens"
# task, shape -> the ratio that is aimed at, by peer
AIMS: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("train", TINY): {EAGER: 0.90, COMPILED: 1.15},
    ("train", LARGE): {EAGER: 0.90, COMPILED: 1.00},
    ("forward", TINY): {EAGER: 0.90},
    ("forward", LARGE): {EAGER: 0.90},
}
BFLOAT16_AIMS = {EAGER: 1.00, COMPILED: 1.00}
SHARES = {"float32": 0.75, "bfloat16": 0.45}  # of the peak, at least
SQUARE = 4096  # rows and columns of the matrices that measure the peak
NAMES = {"train": "DiT step", "forward": "DiT forward"}


def tiny() -> dict[str, Any]:
    """Stage 2's transformer of `params/tiny.yaml` and the shapes of its inputs, with the stand-ins of three encoders.

    So each row of docs/speed.md is of the same work, whatever encoder the report fetches.
    """
    params = config.load("tiny", {"assets": "none"})
    encoders = params.text.encoders.values()
    return {
        "config": params.dit_config(2).model_dump(),
        "latent": [4, 16, *latent_size(16, *params.recipes[2].dataset.size)],
        "lengths": [one.max_tokens for one in encoders],
    }


def large(layers: int = 8) -> dict[str, Any]:
    """One sample of 2,048 video and 64 text tokens; 8 layers of width 384 with 6 heads are 19 M parameters."""
    shape = {"width": 384, "ffn_width": 1024, "num_heads": 6, "num_layers": layers, "max_size": (8, 16, 16)}
    return {
        "config": tiny()["config"] | shape,
        "latent": [1, 16, 8, 32, 32],
        "lengths": [24, 16, 24],
    }


SHAPES = {TINY: tiny, LARGE: large}


def measure(repetitions: int) -> list[dict[str, Any]]:
    """Forward and training step in float32."""
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        Worker("tests.bench.dit_pytorch", is_ours=False) as pytorch,
        tqdm(total=len(AIMS) * repetitions, desc="transformer", unit="round") as progress,
    ):
        found = []
        for (task, shape), aims in AIMS.items():
            has_peak = (task, shape) == ("train", LARGE)
            found += compare(ours, pytorch, task, shape, "float32", aims, has_peak, repetitions, progress)
    return found


def measure_bfloat16(repetitions: int) -> list[dict[str, Any]]:
    """The large shape's step with products of bfloat16, against PyTorch's autocast."""
    if not has_amx():
        why = "this CPU has no AMX, by which it would multiply matrices of bfloat16"
        print(f"note: {why}")
        return [rows.without_peer(named("train", LARGE, "bfloat16"), peer, [], why, aim)
                for peer, aim in BFLOAT16_AIMS.items()]  # fmt: skip
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        Worker("tests.bench.dit_pytorch", is_ours=False) as pytorch,
        tqdm(total=repetitions, desc="bfloat16", unit="round") as progress,
    ):
        return compare(ours, pytorch, "train", LARGE, "bfloat16", BFLOAT16_AIMS, True, repetitions, progress)


def has_amx() -> bool:
    """Whether this CPU multiplies tiles of bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace").split()


def named(task: str, shape: str, dtype: str) -> str:
    """As in the tables."""
    return f"{NAMES[task]}, {shape}" + ("" if dtype == "float32" else f", {dtype}")


def compare(
    ours: Worker,
    pytorch: Worker,
    task: str,
    shape: str,
    dtype: str,
    aims: Mapping[str, float],
    has_peak: bool,
    repetitions: int,
    progress: tqdm,
) -> list[dict[str, Any]]:
    """A row for each peer, and one for the share of the peak; all of them took turns."""
    name, work = named(task, shape, dtype), {"task": task, **SHAPES[shape]()}
    first = ours.prepare(name, **work, dtype=dtype)
    subjects, failures = {"ours": (ours, name)}, dict[str, str]()
    for peer in aims:
        try:
            pytorch.prepare(f"{name} {peer}", **work, dtype=dtype, is_compiled=peer == COMPILED)
            subjects[peer] = (pytorch, f"{name} {peer}")
        except WorkFailed as error:
            failures[peer] = str(error)
            print(f"note: {name}: {peer} failed, see above")
    if has_peak:
        pytorch.prepare(f"{PEAK} {dtype}", task="matmul", size=SQUARE, dtype=dtype)
        subjects[PEAK] = (pytorch, f"{PEAK} {dtype}")
    times = dict(zip(subjects, take_turns(list(subjects.values()), repetitions, progress), strict=True))
    compile_s = first - statistics.median(times["ours"]) / 1e3
    found = [
        rows.without_peer(name, peer, times["ours"], failures[peer], aim) if peer in failures
        else rows.compared(name, peer, times["ours"], times[peer], aim, compile_s)
        for peer, aim in aims.items()
    ]  # fmt: skip
    return found + ([share_of_peak(name, work, dtype, times)] if has_peak else [])


def share_of_peak(name: str, work: Mapping[str, Any], dtype: str, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The step's arithmetic a second over that of matrix products; times are those of each."""
    step, peak = step_flops(work), 2 * SQUARE**3
    share = rows.ratio(times[PEAK], times["ours"]) * step / peak
    return {
        **rows.compared(name, f"{PEAK}, {SQUARE} squares", times["ours"], times[PEAK]),
        **rows.judged(share, at_least=SHARES[dtype]),
        "calls_ms": {
            "ours": times["ours"],
            "reference": times[PEAK],
            "ours_gflops": step / statistics.median(times["ours"]) / 1e6,
            "peak_gflops": peak / statistics.median(times[PEAK]) / 1e6,
        },
    }


def step_flops(work: Mapping[str, Any]) -> int:
    """FLOPs of a training step of the batch."""
    batch, _, frames, height, width = work["latent"]
    tokens = frames * (height // PATCH) * (width // PATCH)
    return batch * flops.step_flops(DiTConfig.model_validate(work["config"]), tokens, work["lengths"])


def measure_euler(repetitions: int) -> list[dict[str, Any]]:
    """The sampler against bare calls of the network; says so where it costs more than it should."""
    work = tiny()
    with (
        Worker("tests.bench.dit_ours", is_ours=True) as ours,
        tqdm(total=repetitions, desc="Euler", unit="round") as progress,
    ):
        first = ours.prepare("euler", task="euler", **work)
        ours.prepare("bare", task="bare", **work)
        times, reference = take_turns([(ours, "euler"), (ours, "bare")], repetitions, progress)
    compile_s = first - statistics.median(times) / 1e3
    found = rows.compared("10 guided Euler steps", "10 bare calls", times, reference, compile_s=compile_s)
    overhead = 100 * (found["ratio_of_fastest_calls"] - 1)
    if overhead > EULER_PERCENT:
        print(f"warning: Euler's method adds {overhead:.1f} % to the network's time, more than {EULER_PERCENT} %")
    return [found]
