"""Find out, from outside and at once, that a job has failed: which worker, why, and what it said last."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import psutil

from moviegen.parallel.job import Job
from moviegen.parallel.worker import SCHEDULER

GRACE_SECONDS = 1.0  # after the first failure: for other workers to report theirs, for stacks to reach the logs
LAST_LINES = 40

# What msrun logs within a second of a worker's end, long before it ends itself.
_DEAD_WORKER = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
_DEAD_SCHEDULER = re.compile(r"Scheduler process \d+ exit with exception")


class JobError(RuntimeError):
    """A job that could not be run to its end."""


class WorkerError(JobError):
    """A worker failed, or the scheduler, or msrun itself; the message holds the traceback or the last log lines."""

    def __init__(self, rank: str, reason: str, detail: str, log: Path) -> None:
        self.rank, self.log = rank, log
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


class Watch:
    """Watches the processes of one started job."""

    def __init__(self, job: Job, guard: subprocess.Popen) -> None:
        self.job, self.guard = job, guard
        self._names: dict[int, str] = {}  # process id -> rank or "scheduler"
        self._msrun_log = Tail(job.log("msrun"), from_start=True)
        self._dead: tuple[str, str] | None = None  # who msrun says has ended, and how

    def raise_if_failed(self) -> None:
        """Raise what the worker that failed first reported; call it again and again while the job runs."""
        self._look()
        if self._error() is None:
            return
        if self.guard.returncode is None:
            time.sleep(GRACE_SECONDS)
            self._look()
        raise self._error()

    def stalled(self, seconds: float) -> StalledJobError:
        """Have every worker write its stacks to its log; return the error that shows those of worker 0."""
        for pid in self._find_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(GRACE_SECONDS)
        log = self.job.log(str(self.job.first_rank))
        return StalledJobError(
            f"no new line in {self.job.metrics} for {seconds:g} s; the job was ended. Where each worker was is at the "
            f"end of its log in {self.job.log_dir}; the end of {log.name}:\n\n{last_lines(log)}"
        )

    def _look(self) -> None:
        if len(set(self._names.values())) < self.job.process_num:  # a look at all processes: not in every poll
            self._names |= self._find_processes()
        for line in self._msrun_log.new_lines():
            if self._dead is None:
                self._dead = self._parse_death(line)

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

    def _parse_death(self, line: str) -> tuple[str, str] | None:
        if worker := _DEAD_WORKER.search(line):
            pid, end = int(worker[1]), how_it_ended(int(worker[2]))
            if pid in self._names:
                return self._names[pid], end
            return "msrun", f"lost a worker as soon as it had started: it {end}"  # its log shows those of all workers
        if _DEAD_SCHEDULER.search(line):
            return SCHEDULER, "failed"
        return None

    def _error(self) -> WorkerError | None:
        """Return the best account there is: a worker's own, msrun's, or a mere exit code."""
        reports = sorted(self.job.log_dir.glob("error_*.txt"), key=lambda path: path.stat().st_mtime_ns)
        if reports:
            ranks = [path.stem.removeprefix("error_") for path in reports]
            also = f" (later also: {', '.join(ranks[1:])})" if ranks[1:] else ""
            detail = reports[0].read_text(encoding="utf-8")
            return WorkerError(ranks[0], f"failed{also}", detail, self.job.log(ranks[0]))
        if self._dead:
            return self._silent_death(*self._dead)
        if self.guard.returncode:
            name = "msrun" if self.job.uses_msrun else "0"
            return self._silent_death(name, how_it_ended(self.guard.returncode))
        return None

    def _silent_death(self, name: str, reason: str) -> WorkerError:
        log = self.job.log(name)
        return WorkerError(name, f"{reason}; its last words:", last_lines(log), log)


def how_it_ended(code: int) -> str:
    """Put a process's exit code into words; -n and, as shells have it, 128 + n mean signal n."""
    number = -code if code < 0 else code - 128
    if number not in {s.value for s in signal.Signals}:
        return f"ended with exit code {code}"
    hint = " (out of memory? `dmesg` knows)" if number == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(number).name}{hint}"


def last_lines(path: Path) -> str:
    """Return the last lines of a log, or a note that there are none."""
    if not path.exists():
        return "(there is no log)"
    with path.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, maxlen=LAST_LINES)) or "(the log is empty)"
