"""`python -m moviegen.launch.guard COMMAND ...`: runs a command that can't outlive whoever started it.

The guard stands between `run_job` and msrun. Its standard input is a pipe whose other end only the launcher holds:
when that closes (the launcher is done, was interrupted, or was itself killed: the kernel closes pipes for everyone),
the guard kills every process below it. One mechanism for all endings, with no signal handler in the notebook's kernel.

It must be a process of its own because msrun puts each worker into a new session, where no group kill reaches it, and
leaves workers, scheduler and `tail`s behind when it is killed. The guard adopts those orphans, so it can find them.
"""

import select
import subprocess
import sys
from contextlib import suppress

import psutil

from moviegen.launch.worker import adopt_orphans, die_with_parent

POLL_SECONDS = 0.1


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; return its code, 128 + n if signal n ended it."""
    adopt_orphans()
    try:
        # If someone kills the guard, the command goes too (preexec_fn is safe: this process has one thread).
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        while child.poll() is None and not _launcher_gone():
            pass
    finally:
        kill_descendants()
    code = child.wait()
    return 128 - code if code < 0 else code


def _launcher_gone() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
    return bool(readable)  # nothing is ever written to the pipe: readable means closed


def kill_descendants() -> None:
    """SIGKILL everything below this process, until a look finds nothing that was started in the meantime."""
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
