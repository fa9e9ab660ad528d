"""The code, the packages and the machine behind a result."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from moviegen.config import project_root
from moviegen.device.limits import cores, memory_bytes

CODE = ("moviegen", "notebooks", "requirements.lock")
# variables that have git look at another repository than the folder's own
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
PACKAGES = ("mindspore", "numpy", "scikit-image", "decord", "av", "papermill", "nbconvert")


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


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes.

    Linux says it of the process itself; `getrusage` begins with the peak of the process that started it.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_growth(work: Callable[[], object]) -> int | None:
    """Bytes by which this process is larger, at its largest, while it does something; None: the system does not say.

    What was freed before is given back first, as `work` would take it without growing. Linux alone lets a process
    forget its highest memory (proc(5), clear_refs).
    """
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if give_back:
        give_back(0)
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    work()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Bytes that Linux says of this process; 0: nothing."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
