"""The code, the packages and the machine behind a result."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from moviegen.config import project_root

CODE = ("moviegen", "notebooks", "requirements.lock")
# variables that have git look at another repository than the folder's own
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2, of version 1
PACKAGES = ("mindspore", "numpy", "scikit-image", "av", "papermill", "nbconvert")


def git_commit() -> str:
    """The checkout's commit, with `+changes` where its code differs; `unknown` where it is not a checkout.

    A copy of the project that lies inside another repository has no commit of its own. Files of the user's beside the
    code change nothing: the manifest says by parameters and fingerprint what a result follows from.
    """
    root = project_root()
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").split("\n")
        if not Path(top).samefile(root):
            return "unknown"
        changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *CODE)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes else "")


def _git(root: Path, *words: str) -> str:
    """What git says of a folder, also where another user owns it (a checkout mounted into a container).

    The user's settings of which repository to look at are left out: git's hooks, for one, export them.
    """
    environment = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    command = ("git", "-c", f"safe.directory={root}", *words)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True)
    return os.fsdecode(done.stdout).removesuffix("\n")


def versions() -> dict[str, str]:
    """Python and the packages a result depends on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def machine() -> dict[str, Any]:
    """The machine the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return {"cpu": model, "cores": cores(), "memory_bytes": memory_bytes(), "system": platform.system()}


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


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
