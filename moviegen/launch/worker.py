"""The worker's side of a launched job: report errors, show stacks on request, never outlive the launcher.

`python -m moviegen` wraps its work in `supervised()`. This module imports only the standard library: a scheduler
process runs the same program as the workers, and both should be under supervision before the slow imports begin.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

LOG_DIR_VARIABLE = "MOVIEGEN_LOG_DIR"  # set by `run_job` for every process of its job
SCHEDULER = "scheduler"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def rank_name() -> str:
    """Name this process within its job: "0", "1", ... or "scheduler" (whose RANK_ID is also 0)."""
    return SCHEDULER if os.environ.get("MS_ROLE") == "MS_SCHED" else os.environ.get("RANK_ID", "0")


@contextmanager
def supervised() -> Iterator[None]:
    """Put the enclosed work under its launcher's supervision.

    Under `msrun` alone the process dies with it; under `run_job` it reports its exceptions as well. A program started
    by hand ends in order however it is told to: its run's manifest says that it was interrupted.
    """
    log_dir = os.environ.get(LOG_DIR_VARIABLE)
    if not log_dir and "MS_ROLE" not in os.environ:
        with terminated_as_interrupted():
            yield
        return
    die_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    with report_errors(Path(log_dir), rank_name()) if log_dir else nullcontext():
        yield


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Lets a termination, or a terminal that is closed, raise KeyboardInterrupt as Ctrl-C does.

    And Ctrl-C itself: while MindSpore compiles or runs a graph it catches SIGINT and sends its own process SIGTERM.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.getsignal(number) for number in ends if signal.getsignal(number) != signal.SIG_IGN
    }  # nohup
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def report_errors(log_dir: Path, rank: str) -> Iterator[None]:
    """Leave the traceback of an exception in `<log_dir>/error_<rank>.txt`, and raise it again.

    The launcher polls for these files: msrun itself would take up to a minute to say that some worker failed.
    """
    try:
        yield
    except Exception:
        part = log_dir / f"error_{rank}.part"
        with suppress(OSError):  # a full disk: what is raised says so better
            part.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            part.replace(log_dir / f"error_{rank}.txt")  # atomic: the launcher never reads half a traceback
        raise


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent dies (Linux; does nothing elsewhere).

    The kernel means the parent *thread* that started the process: both parents we have, msrun and our guard, start
    their children from their only thread. The setting survives `exec` and is not inherited by children.
    """
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew of our wish: no signal will come
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, instead of init (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")
