"""What a distributed job is, and the `msrun` command that starts it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from moviegen.device import COMMON_ENVIRONMENT

# Defaults for every job; what the user exported or the job sets wins.
ENVIRONMENT = {
    **COMMON_ENVIRONMENT,
    "MS_RETRY_INTERVAL_LOWER": "1",  # s; workers ask the scheduler this often: halves the time of starting
    "MS_RETRY_INTERVAL_UPPER": "1",
}
RUN_VARIABLE = "MOVIEGEN_RUN"


def ascend_environment(cards: int, has_videos: bool) -> dict[str, str]:
    """What the original report's scripts export for Ascend cards.

    Args:
        cards: how many of this host's the job takes, from the first.
        has_videos: the job sees images and videos: shapes change from step to step.
    """
    variables = {
        "ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, range(cards))),
        "MS_MEMORY_STATISTIC": "0",  # no record of the memory's use is kept
    }
    # operations of changing shapes are fused into one kernel
    return variables | ({"MS_DEV_ENABLE_KERNEL_PACKET": "on"} if has_videos else {})


@dataclass(frozen=True)
class Job:
    """A command and the processes that run it together."""

    command: tuple[str, ...]
    """What each worker runs: ("python", "-m", "moviegen", "train", ...)."""
    log_dir: Path
    """Holds worker_<rank>.log, scheduler.log, msrun.log and error_<rank>.txt. One per host, one job at a time."""
    worker_num: int = 1
    """Workers on all hosts. A single one is started directly: it needs no msrun and sees no rank."""
    local_worker_num: int = 1
    """Workers on each host."""
    master_addr: str = "127.0.0.1"
    """The scheduler's host: that of node 0."""
    master_port: int | None = None
    """The scheduler's port. None: `run_job` picks a free one."""
    node_rank: int = 0
    """Which of the hosts this is."""
    bind_core: bool = False
    """Pin each worker to cores of its own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for all processes, above the caller's own and `ENVIRONMENT`."""
    run: str = ""
    """The runs that the command computes, a colon between them, as RUN_VARIABLE tells its processes. Empty: none."""
    operators: str = ""
    """The form of the operators that compute it, which its processes are told. Empty: theirs to find out."""
    cluster_time_out: int = 300
    """Seconds the workers have to find each other."""
    metrics: tuple[Path, ...] = ()
    """The metrics.jsonl of each run, to which the workers append: `run_job` follows them."""
    stall_timeout: float | None = None
    """`run_job` ends the job if `metrics` gain no line for so many seconds. None: it waits."""

    def __post_init__(self) -> None:
        if self.command[:1] != ("python",):
            raise ValueError(f"command must start with 'python' (msrun would put it in front), not {self.command[:1]}")
        if self.local_worker_num < 1 or self.worker_num % self.local_worker_num:
            raise ValueError(
                f"worker_num = {self.worker_num} is not a multiple of local_worker_num = {self.local_worker_num}: "
                "every host runs the same number of workers"
            )
        if not 0 <= self.node_rank < self.host_num:
            raise ValueError(f"node_rank = {self.node_rank} is not one of the {self.host_num} hosts (0 is the first)")
        if self.host_num > 1 and self.master_port is None:
            raise ValueError(f"a job on {self.host_num} hosts needs a master_port: all of them must know it")

    @property
    def host_num(self) -> int:
        """How many hosts take part."""
        return self.worker_num // self.local_worker_num

    @property
    def uses_msrun(self) -> bool:
        """Whether the workers need a scheduler to find each other."""
        return self.worker_num > 1

    @property
    def first_rank(self) -> int:
        """The lowest rank on this host."""
        return self.node_rank * self.local_worker_num

    @property
    def process_num(self) -> int:
        """How many processes run the command on this host: the workers and, on node 0, the scheduler."""
        return self.local_worker_num + (self.uses_msrun and self.node_rank == 0)

    def log(self, rank: str) -> Path:
        """Return the log file of a worker ("0", "1", ...), of the "scheduler" or of "msrun"."""
        return self.log_dir / (f"worker_{rank}.log" if rank.isdigit() else f"{rank}.log")


def msrun_command(job: Job) -> list[str]:
    """Return the command for this job's node, as one would type it."""
    flags = ["--bind_core=True"] if job.bind_core else []
    if job.master_port is not None:
        flags.append(f"--master_port={job.master_port}")
    flags += [f"--worker_num={job.worker_num}", f"--local_worker_num={job.local_worker_num}"]
    flags += [f"--log_dir={job.log_dir}", "--join=True", f"--cluster_time_out={job.cluster_time_out}"]
    if job.host_num > 1:
        flags += [f"--master_addr={job.master_addr}", f"--node_rank={job.node_rank}"]
    return ["msrun", *flags, *job.command]


def host_commands(job: Job) -> list[str]:
    """Return, for each host, the shell lines that start its part of the job: the exports, then the command."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {**ENVIRONMENT, **job.environment}.items()]
    if not job.uses_msrun:
        return ["\n".join([*exports, shlex.join(job.command)])]
    commands = []
    for node_rank in range(job.host_num):
        msrun = msrun_command(replace(job, node_rank=node_rank))
        flags, program = msrun[: -len(job.command)], msrun[-len(job.command) :]
        commands.append("\n".join([*exports, f"{shlex.join(flags)} \\", shlex.join(program)]))
    return commands
