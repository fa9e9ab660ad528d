"""Peak memory of a training step, blocks recomputed or not: `python -m tests.bench.recompute 1` is one case."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import config, device
from moviegen.config import latent_size
from moviegen.runs import machine

BATCH = 8
WAYS = {"kept": 0, "every 2nd recomputed": 2, "all recomputed": 1}


def child(every_nth: int) -> dict[str, Any]:
    """Two updates at the size of stage 3, in this process alone."""
    import mindspore as ms

    from moviegen.dit.model import DiT
    from tests.bench.dit_ours import update

    device.start(0)
    params, rng = config.load("tiny"), np.random.default_rng(0)
    dit = DiT(params.dit_config(3))
    dit.recompute_blocks(every_nth)
    latents = rng.standard_normal((2, BATCH, 16, *latent_size(16, *params.recipes[3].dataset.size)), np.float32)
    encoders = params.text.encoders.values()
    texts = [rng.standard_normal((BATCH, one.max_tokens, one.width), np.float32) for one in encoders]
    masks = np.ones((BATCH, sum(one.max_tokens for one in encoders)), bool)
    step = update(dit, [ms.Tensor(array) for array in (*latents, np.full(BATCH, 0.5, np.float32), *texts, masks)])
    before = machine.peak_memory()
    step()
    started = time.perf_counter()
    step()
    return {
        "before_bytes": before, "peak_bytes": machine.peak_memory(), "second_step_s": time.perf_counter() - started,
    }  # fmt: skip


def measure(repetitions: int) -> list[dict[str, Any]]:
    """One row for each way; memory is not a matter of chance, so nothing is repeated."""
    rows = []
    for way, every_nth in tqdm(WAYS.items(), desc="recompute", unit="step"):
        command = (sys.executable, "-m", "tests.bench.recompute", str(every_nth))
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        rows.append(
            {
                "blocks": way,
                "peak_mb": result["peak_bytes"] / 1e6,
                "grown_mb": (result["peak_bytes"] - result["before_bytes"]) / 1e6,
                "second_step_s": result["second_step_s"],
            }
        )
    return rows


if __name__ == "__main__":
    print(json.dumps(child(int(sys.argv[1]))))
