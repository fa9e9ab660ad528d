"""What ranks exchange in compiled graphs, counted in MindSpore's own text of them.

MindSpore writes the text after its last pass: the backward pass is in it, and what is recomputed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path

LAST_PASS = "hwopt_cpu_custom_optimization_after"
COLLECTIVES = {
    "AllGather": "all-gather", "AllReduce": "all-reduce", "ReduceScatter": "reduce-scatter", "AlltoAll": "all-to-all",
}  # fmt: skip
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
CALL = re.compile(rf"  %\d+\(.*?\) = (?:PrimFunc_)?({'|'.join(COLLECTIVES)})\(")
TENSORS = re.compile(r"      : \(<Tensor\[(\w+)\], \((.*?)\)>\) -> \(<Tensor\[\w+\], \((.*?)\)>\)")
Exchanged = dict[tuple[str, str], tuple[int, int]]  # collective, type of the numbers -> calls, bytes


def dump_environment(folder: Path) -> dict[str, str]:
    """What has MindSpore leave its graphs' text in a folder, of each rank one below it."""
    return {
        "MS_DEV_SAVE_GRAPHS": "2", "MS_DEV_SAVE_GRAPHS_PATH": str(folder), "MS_DEV_DUMP_IR_PASSES": LAST_PASS,
    }  # fmt: skip


def exchanged(folder: Path) -> list[Exchanged]:
    """Of each graph in the folder of a rank, in the order in which they were compiled.

    Bytes are of the whole tensors: what a gather gives, what others are given.
    """
    return [_exchanged(path) for path in sorted(folder.glob(f"{LAST_PASS}*.ir"), key=_number)]


def _number(path: Path) -> int:
    return int(path.stem.split("_")[-1])


def _exchanged(path: Path) -> Exchanged:
    calls, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line, after in itertools.pairwise(lines):
        call, tensors = CALL.match(line), TENSORS.match(after)
        if call and tensors:
            dtype, given, got = tensors.groups()
            key = COLLECTIVES[call[1]], dtype.lower()
            shape = got if call[1] == "AllGather" else given
            calls[key] += 1
            sizes[key] += BYTES[dtype.lower()] * math.prod(int(side) for side in shape.split(",") if side.strip())
    return {key: (calls[key], sizes[key]) for key in calls}
