"""Variables of the environment that no result may follow from, and that only a worker of a job may have."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

# They change what is computed, and no fingerprint knows of them.
ALTERING = (
    "MS_COMPILER_CACHE_*",  # a graph compiled for other constants or shapes is taken for this one's: wrong numbers
    "MS_SIMULATION_LEVEL",  # a dry run: nothing is computed, every loss is 0, and the program ends well
    "MS_KERNEL_LAUNCH_SKIP",  # the same of the operations it names
    "MS_JIT",  # 0: no graphs; a training step ends in a RecursionError
    "MS_JIT_MODULES",  # which code becomes graphs
    "MS_JIT_IGNORE_MODULES",
    "HCCL_DETERMINISTIC",  # the order in which cards add: `launch.deterministic` says it
    "LCCL_DETERMINISTIC",
    "MS_DEV_*",  # MindSpore's developers' switches: PRECOMPILE_ONLY computes nothing, GRAPH_KERNEL_FLAGS wrong losses
)
# msrun sets them for the processes it starts. Elsewhere they are left from an earlier job: a process with them waits
# half an hour for a scheduler that does not exist, or is refused, and names its logs after another process's rank.
JOB_VARIABLES = (
    "MS_ROLE", "MS_WORKER_NUM", "MS_SERVER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID", "MS_WORKER_IP",
    "RANK_ID", "RANK_SIZE", "DEVICE_ID", "RANK_TABLE_FILE",
)  # fmt: skip
DRY_RUN = "MOVIEGEN_DRY_RUN"  # what `plan --dry-run` starts has it: that is to compute nothing, and leaves no result
KEPT = (
    "MS_DEV_ENABLE_KERNEL_PACKET",  # a job on Ascend cards has it
    "MS_DEV_SAVE_GRAPHS*",  # writes what was compiled, for who looks for a fault
    "MS_DEV_DUMP_*",
)


def leftovers(environment: Mapping[str, str], in_job: bool = False) -> list[str]:
    """Names of the variables that no result may follow from, sorted.

    Args:
        in_job: msrun has started it.
    """
    unwanted = ALTERING if in_job or DRY_RUN in environment else (*ALTERING, *JOB_VARIABLES)
    kept = (*KEPT, "MS_SIMULATION_LEVEL") if DRY_RUN in environment else KEPT
    return sorted(name for name in environment if _matches(name, unwanted) and not _matches(name, kept))


def clear() -> None:
    """Removes `leftovers` from this process's environment, with a note on standard error."""
    names = leftovers(os.environ, in_job="MS_ROLE" in os.environ and is_below_msrun())
    for name in names:
        del os.environ[name]
    if names:
        print(
            f"note: left out of the environment, as no result may follow from it: {', '.join(names)}", file=sys.stderr
        )


def is_below_msrun() -> bool:
    """Whether msrun has started this process, or one that has."""
    import psutil  # where it is asked for: every import of the package would wait for it

    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # gone, or another user's
            words = process.cmdline()
            if any(Path(word).name == "msrun" for word in words[:2]) or "mindspore.parallel.cluster.run" in words:
                return True
    return False


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
