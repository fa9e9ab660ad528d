"""Find out, from outside and at once, that a job has failed: which worker, why, and what it said last."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from moviegen.launch.job import Job
from moviegen.launch.worker import SCHEDULER

GRACE_SECONDS = 1.0  # after the first failure: for other workers to report theirs, for stacks to reach the logs
LOOKS_FOR_STATUS = 10  # a grace apart: the worker first has to end, and msrun looks once a second
LAST_LINES = 40
SIGNALS = {one.value for one in signal.Signals}
STACK_LINES = 20  # of each worker's log where all are shown: a training step's calls

# What msrun logs within a second of a worker's end, long before it ends itself.
_DEAD_WORKER = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
_DEAD_SCHEDULER = re.compile(r"Scheduler process \d+ exit with exception")


class JobError(RuntimeError):
    """A job that could not be run to its end."""


class WorkerError(JobError):
    """A worker failed, or the scheduler, or msrun itself; the message holds the traceback or the last log lines.

    `status` is the exit code, -n where signal n ended it, None where it had not ended (or msrun does not say how).
    """

    def __init__(self, rank: str, reason: str, detail: str, log: Path, status: int | None) -> None:
        self.rank, self.log, self.status = rank, log, status
        name = f"worker {rank}" if rank.isdigit() else rank
        super().__init__(f"{name} {reason}\n\n{detail.strip()}\n\nIts log: {log}")


class StalledJobError(JobError):
    """The job wrote no metrics for too long."""


class Tail:
    """Reads the lines a growing file gains."""

    def __init__(self, path: Path, from_start: bool = False) -> None:
        self.path = path
        self.offset = 0 if from_start else self._size()

    def new_lines(self) -> list[str]:
        """Return the lines completed since the last call; a half-written one waits for its end."""
        if (size := self._size()) <= self.offset:
            self.offset = size  # a resumed run may have cut the file back to its checkpoint
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self.offset += len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


@dataclass(frozen=True)
class _Death:
    """What msrun says of a process that has failed."""

    name: str
    reason: str
    status: int | None


class Watch:
    """Watches the processes of one started job."""

    def __init__(self, job: Job, guard: subprocess.Popen) -> None:
        self.job, self.guard = job, guard
        self._names: dict[int, str] = {}  # process id -> rank or "scheduler"
        self._msrun_log = Tail(job.log("msrun"), from_start=True)
        self._deaths: list[_Death] = []  # the first one first

    def raise_if_failed(self) -> None:
        """Raise what the worker that failed first reported; call it again and again while the job runs."""
        self._look()
        error = self._error()
        if error is None:
            return
        for _ in range(LOOKS_FOR_STATUS):
            if self.guard.returncode is not None:
                break
            time.sleep(GRACE_SECONDS)
            self._look()
            error = self._error() or error
            if error.status is not None:
                break
        raise error

    def stalled(self, seconds: float) -> StalledJobError:
        """Have every worker write its stacks to its log; return the error that shows the end of each log."""
        for pid in self._find_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(GRACE_SECONDS)
        logs = [self.job.log(str(self.job.first_rank + place)) for place in range(self.job.local_worker_num)]
        ends = "\n\n".join(f"The end of {log}:\n\n{last_lines(log, STACK_LINES)}" for log in logs)
        files = ", ".join(map(str, self.job.metrics))
        return StalledJobError(
            f"no new line in {files} for {seconds:g} s; the job was ended. Where each worker was, the one "
            f"that hangs and those that wait for it:\n\n{ends}"
        )

    def _look(self) -> None:
        if len(set(self._names.values())) < self.job.process_num:  # a look at all processes: not in every poll
            self._names |= self._find_processes()
        self._deaths += filter(None, map(self._parse_death, self._msrun_log.new_lines()))

    def _find_processes(self) -> dict[int, str]:
        """Return the name of each process below the guard that runs the job's command."""
        names = {}
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.guard.pid).children(recursive=True):
                with suppress(psutil.Error):  # gone in between, or a zombie
                    if tuple(process.cmdline()[1:]) == self.job.command[1:]:
                        environment = process.environ()
                        is_scheduler = environment.get("MS_ROLE") == "MS_SCHED"
                        names[process.pid] = SCHEDULER if is_scheduler else environment.get("RANK_ID", "0")
        return names

    def _parse_death(self, line: str) -> _Death | None:
        if worker := _DEAD_WORKER.search(line):
            pid, status = int(worker[1]), exit_status(int(worker[2]))
            if pid in self._names:
                return _Death(self._names[pid], how_it_ended(status), status)
            lost = f"lost a worker as soon as it had started: it {how_it_ended(status)}"
            return _Death("msrun", lost, status)  # its log shows those of all workers
        if _DEAD_SCHEDULER.search(line):
            return _Death(SCHEDULER, "failed", None)
        return None

    def _status(self, rank: str) -> int | None:
        """Return how a worker that reported an error ended; None while it has not.

        A worker that ended before it was looked at has no name among the deaths: it is the one that reported first.
        """
        if not self.job.uses_msrun:
            code = self.guard.poll()
            return None if code is None else exit_status(code)
        return next((death.status for death in self._deaths if death.name in (rank, "msrun")), None)

    def _error(self) -> WorkerError | None:
        """Return the best account there is: a worker's own, msrun's, or a mere exit code."""
        reports = sorted(self.job.log_dir.glob("error_*.txt"), key=lambda path: path.stat().st_mtime_ns)
        if reports:
            ranks = [path.stem.removeprefix("error_") for path in reports]
            status = self._status(ranks[0])
            facts = ["had not ended" if status is None else how_it_ended(status)]
            facts += [f"later also: {', '.join(ranks[1:])}"] if ranks[1:] else []
            detail = reports[0].read_text(encoding="utf-8")
            return WorkerError(ranks[0], f"failed ({'; '.join(facts)})", detail, self.job.log(ranks[0]), status)
        if self._deaths:
            return self._silent_death(self._deaths[0])
        if self.guard.returncode:
            name, status = "msrun" if self.job.uses_msrun else "0", exit_status(self.guard.returncode)
            return self._silent_death(_Death(name, how_it_ended(status), status))
        return None

    def _silent_death(self, death: _Death) -> WorkerError:
        log = self.job.log(death.name)
        return WorkerError(death.name, f"{death.reason}; its last words:", last_lines(log), log, death.status)


def exit_status(code: int) -> int:
    """Return -n where signal n ended a process, which shells and our guard write as 128 + n; else the exit code."""
    return 128 - code if code - 128 in SIGNALS else code


def how_it_ended(status: int) -> str:
    """Put an `exit_status` into words."""
    if -status not in SIGNALS:
        return f"ended with exit code {status}"
    hint = " (out of memory? `dmesg` knows)" if status == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{hint}"


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """Return the last lines of a log, or a note that there are none."""
    if not path.exists():
        return "(there is no log)"
    with path.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, maxlen=count)) or "(the log is empty)"
