"""Run a job of `python -m moviegen ...` workers to its end, from a notebook's kernel or the command line.

Never imports MindSpore, so that it stays out of the kernel. `job.py` says what a job is, `watch.py` notices failed
workers, `guard.py` ends all processes whatever happens to this one, `worker.py` is what runs inside the job.
"""

import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from moviegen import device
from moviegen.device import compiled
from moviegen.device.environment import leftovers
from moviegen.launch.hosts import check_first_host
from moviegen.launch.job import ENVIRONMENT, RUN_VARIABLE, Job, msrun_command
from moviegen.launch.lock import FolderInUse, locked
from moviegen.launch.watch import JobError, Tail, Watch
from moviegen.launch.worker import LOG_DIR_VARIABLE

POLL_SECONDS = 0.2

OnProgress = Callable[[dict[str, Any]], None]


class JobBusyError(JobError):
    """Another job writes its logs into the same folder."""


class PortTakenError(JobError):
    """The port asked for the scheduler is in use."""


def run_job(job: Job, on_progress: OnProgress | None = None, stall_timeout: float | None = None) -> None:
    """Run this host's part of the job to its end; whatever ends this call, no process of the job is left.

    Args:
        job: What to run.
        on_progress: Called with each new line of `job.metrics`, in this thread. If it raises, the job ends.
        stall_timeout: Seconds without a new line of `job.metrics` that end the job; default: the job's own.

    Raises:
        JobBusyError: Another call runs a job with this `log_dir`; it is not disturbed.
        AddressError: The job runs on several hosts, and `master_addr` does not lead them to the first.
        PortTakenError: `job.master_port` is in use.
        WorkerError: A worker failed.
        StalledJobError: No progress for `stall_timeout` seconds.
    """
    stall_timeout = job.stall_timeout if stall_timeout is None else stall_timeout
    if stall_timeout is not None and not job.metrics:
        raise ValueError("stall_timeout needs job.metrics: progress is a new line there")
    check_first_host(job)
    job.log_dir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(job.log_dir):  # a second job would move its logs away, and one's errors would end the other
            _follow(with_port(job), on_progress, stall_timeout)
    except FolderInUse as error:
        raise JobBusyError(f"another job is running with its logs in {job.log_dir}: {error}") from None


def _follow(job: Job, on_progress: OnProgress | None, stall_timeout: float | None) -> None:
    _set_old_logs_aside(job)
    tails = [Tail(metrics) for metrics in job.metrics]
    with _started(job) as guard:
        watch = Watch(job, guard)
        last_progress = time.monotonic()
        running = True
        while running:
            running = guard.poll() is None  # asked first: what the job wrote last is then read as well
            for line in itertools.chain.from_iterable(tail.new_lines() for tail in tails):
                last_progress = time.monotonic()
                _pass_on(line, on_progress)
            watch.raise_if_failed()
            if stall_timeout is not None and time.monotonic() - last_progress > stall_timeout:
                raise watch.stalled(stall_timeout)
            time.sleep(POLL_SECONDS if running else 0)


def with_port(job: Job) -> Job:
    """Return the job with a free port for its scheduler; refuse a given one that is taken.

    A taken port would otherwise show only after `cluster_time_out`, with every worker waiting in silence.
    """
    if not job.uses_msrun or job.node_rank > 0:  # no scheduler here
        return job
    if job.master_port is None:
        # Below Linux's ephemeral ports (from 32768): no outgoing connection, no other notebook's kernel takes it
        # between this test and the scheduler's start.
        candidates = random.SystemRandom().sample(range(10_000, 32_000), 100)
        return replace(job, master_port=next(port for port in candidates if _is_free(port)))
    if not _is_free(job.master_port):
        raise PortTakenError(
            f"master_port {job.master_port} is in use, perhaps by another job: end that program, "
            "name another port, or leave master_port out to have a free one chosen"
        )
    return job


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of the last job don't count
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _set_old_logs_aside(job: Job) -> None:
    """Forget an earlier attempt's errors, keep its logs as *.log.1: what is found from now on is this attempt's."""
    for error in job.log_dir.glob("error_*"):
        error.unlink()
    for log in job.log_dir.glob("*.log"):
        log.replace(log.with_name(f"{log.name}.1"))


@contextmanager
def _started(job: Job) -> Iterator[subprocess.Popen]:
    """Start the job below a guard; leaving the context, in whatever way, ends all of it."""
    bin_dir = str(Path(sys.executable).parent)  # msrun lives there, and the `python` it will look for on PATH
    command = [f"{bin_dir}/msrun", *msrun_command(job)[1:]] if job.uses_msrun else list(job.command)
    unwanted = {*leftovers(os.environ), *device.set_here}
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment = {**ENVIRONMENT, **inherited, **job.environment, LOG_DIR_VARIABLE: str(job.log_dir.absolute())}
    environment[RUN_VARIABLE] = job.run
    if job.operators:
        environment[compiled.CHOICE] = job.operators
    environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"  # as logs are read, whatever the caller's locale
    environment["PATH"] = os.pathsep.join([bin_dir, environment.get("PATH", os.defpath)])
    with job.log("msrun" if job.uses_msrun else "0").open("wb") as log:
        guard = subprocess.Popen(
            [sys.executable, "-m", "moviegen.launch.guard", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C and a kernel's shutdown are sent to the caller's group: not to the guard
        )
    try:
        yield guard
    finally:
        guard.communicate()  # closes its input, which tells it to end the job, and waits


def _pass_on(line: str, on_progress: OnProgress | None) -> None:
    if on_progress is None:
        return
    try:
        record = json.loads(line)
    except json.JSONDecodeError:  # a line begun by a killed attempt and continued by this one
        return
    on_progress(record)
