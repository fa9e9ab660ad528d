"""How much of the machine this process may use: its container's limits, and its share among the workers of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from moviegen.config import Launch

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2, of version 1


def threads(launch: Launch | None = None) -> int:
    """How many threads compute in this process: OMP_NUM_THREADS, else its share of the cores.

    Args:
        launch: the recipe's job, whose workers on this host share its cores, where this process is one of them.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.strip().isdecimal() and int(asked):
        return int(asked)
    workers = 1
    if launch and "MS_ROLE" in os.environ and not launch.bind_core:  # bound ones each have cores of their own
        hosts = launch.worker_num // launch.local_worker_num
        workers = int(os.environ.get("MS_WORKER_NUM", 1)) // hosts
    return max(1, int(cores() / max(1, workers)))


def cores(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> float:
    """How many cores this process may keep busy: at most those it may run on, and its container's share of time."""
    shares = [int(quota) / int(period) for quota, period in _cpu_quotas(cgroups, own_cgroups) if int(quota) > 0]
    allowed = min([len(os.sched_getaffinity(0)), *shares])
    return int(allowed) if allowed == int(allowed) else round(allowed, 2)


def memory_bytes(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> int:
    """Bytes of memory that this process may take: the machine's, or less where its container has a limit."""
    limits = [_words(folder, name) for name in MEMORY_LIMITS for folder in _folders("memory", cgroups, own_cgroups)]
    return min([psutil.virtual_memory().total, *(int(limit[0]) for limit in limits if limit and limit[0] != "max")])


def _cpu_quotas(cgroups: Path, own_cgroups: Path) -> Iterator[tuple[str, str]]:
    """(quota, period) of every group this process is in that has them, in microseconds."""
    for folder in _folders("cpu", cgroups, own_cgroups):
        times = _words(folder, "cpu.max") or _words(folder, "cpu.cfs_quota_us") + _words(folder, "cpu.cfs_period_us")
        if len(times) == 2 and times[0] != "max":
            yield times[0], times[1]


def _folders(controller: str, cgroups: Path, own_cgroups: Path) -> Iterator[Path]:
    """The folders of the control groups this process is in: its own, then those around it, whose limits hold as well.

    In a container a group's path may exist on the host alone; the top folder is then the container's.
    """
    lines = own_cgroups.read_text(encoding="utf-8").splitlines() if own_cgroups.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroups / controllers  # version 1 has a folder for each controller, version 2 (no name) has one for all
        top = top if top.is_dir() else cgroups / controller  # "cpuacct,cpu" may lie in "cpu,cpuacct", with links to it
        group = top / path.lstrip("/")
        yield from (group, *(folder for folder in group.parents if folder.is_relative_to(top)))


def _words(folder: Path, name: str) -> list[str]:
    try:
        return (folder / name).read_text(encoding="utf-8").split()
    except OSError:  # no such limit, or no such folder
        return []
