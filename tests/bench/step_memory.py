"""Peak memory of a training step here and in PyTorch: of processes that do nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from tests.bench import dit, rows, tae
from tests.bench.workers import Worker

AT_MOST = 1.1


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each step; memory is not a matter of chance, so nothing is repeated."""
    steps = [
        (dit.named("train", dit.TINY, "float32"), "dit", {"task": "train"} | dit.tiny(), [{}]),
        *((str(case), "tae", tae.work(case), [{"channels_last": last} for last in tae.ORDERS.values()])
          for case in tae.CASES if case.task == "train"),
    ]  # fmt: skip
    found = []
    for name, kind, work, forms in tqdm(steps, desc="memory of a step", unit="step"):
        ours = peak(*OURS[kind], work)
        theirs = min(peak(*PYTORCH[kind], work | form) for form in forms)
        found.append(
            {
                "task": name,
                "peer": "PyTorch",
                "ours_mb": ours / 1e6,
                "reference_mb": theirs / 1e6,
                **rows.judged(ours / theirs, at_most=AT_MOST),
            }
        )
    return found


OURS = {"dit": ("tests.bench.dit_ours", True), "tae": ("tests.bench.ours", True)}
PYTORCH = {"dit": ("tests.bench.dit_pytorch", False), "tae": ("tests.bench.pytorch", False)}


def peak(module: str, is_ours: bool, work: Mapping[str, Any]) -> int:
    """Bytes, of a fresh process: imports, compilation and three steps."""
    with Worker(module, is_ours) as worker:
        worker.prepare("step", **work)
        return worker.peak_memory()
