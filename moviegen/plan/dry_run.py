"""MindSpore's own count of a step's memory: its dry run, which compiles and allocates as for a card without computing.

It needs CANN, and no card. The form of the command and of the log are documented: "DryRun" and "msrun Launching",
https://www.mindspore.cn/tutorials/en/r2.9.0/debug/dryrun.html and .../r2.9.0/parallel/msrun_launcher.html. Level 1
counts what operators take and give, as `memory` does, and not their work space. Here it has never run: no machine of
ours has CANN.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from moviegen.config import ConfigError, Params

DRY_RUN = "MOVIEGEN_DRY_RUN"  # as `device.environment` has it, which the planner does not import
CANN = "ASCEND_HOME_PATH"  # where CANN lies, which its set_env.sh exports
MIB = 2**20  # the log's M: of a card of 64 GiB it says 65536M
LINES = {
    "used": r"Used peak memory usage \(without fragments\): *(\d+)M",
    "reserved": r"Actual peak memory usage \(with fragments\): *(\d+)M",
}


@dataclass(frozen=True)
class Peak:
    """What a dry run found on one card, in bytes.

    Attributes:
        used: the most that tensors took at once.
        reserved: the same, with what the memory's pool lost between them.
    """

    used: int
    reserved: int


def read_peak(log: str) -> Peak:
    """The peak that a dry run's log ends with; of several the highest, as each process of MindSpore's writes one.

    Raises:
        ConfigError: it says none; the message has its last lines.
    """
    found = {name: [int(size) for size in re.findall(line, log)] for name, line in LINES.items()}
    if not all(found.values()):
        end = "\n".join(log.strip().splitlines()[-5:])
        raise ConfigError(
            f"the dry run's log says no peak: it ended before its step, or is no log of level info (GLOG_v=1). It ends "
            f"with:\n{end}"
        )
    return Peak(**{name: MIB * max(sizes) for name, sizes in found.items()})


def check_possible(environment: Mapping[str, str] = os.environ) -> None:
    """Refuses a dry run without CANN.

    Raises:
        ConfigError: the message says what is missing.
    """
    folder = environment.get(CANN, "")
    if not folder:
        raise ConfigError(
            f"a dry run needs CANN, and {CANN} is not set: install the CANN toolkit that this MindSpore asks for, and "
            "source its set_env.sh. No card is needed. `plan` without --dry-run needs neither"
        )
    if not Path(folder).is_dir():
        raise ConfigError(f"a dry run needs CANN, and {CANN} names {folder}, which is no folder")


def dry_run(params: Params, stage: int) -> Peak:
    """Has one card's update of a stage's recipe simulated, on the clips that need most; takes minutes.

    Raises:
        ConfigError: CANN is not there, or the simulation failed.
    """
    check_possible()
    with tempfile.TemporaryDirectory(prefix="moviegen-dry-run-") as folder:
        config = Path(folder, "params.yaml")
        config.write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        programs = Path(sys.executable).parent
        path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
        done = subprocess.run(
            [str(programs / "msrun"), *arguments(params, stage, config, Path(folder, "logs"))],
            env={**os.environ, DRY_RUN: "1", "GLOG_v": "1", "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        logs = [file.read_text(encoding="utf-8", errors="replace") for file in Path(folder, "logs").glob("*.log")]
        return read_peak("\n".join([done.stdout, *logs]))


def arguments(params: Params, stage: int, config: Path, logs: Path) -> list[str]:
    """Of msrun, to simulate the first card of a stage's job.

    Args:
        config: the file of these parameters.
        logs: folder of the worker's log.
    """
    launch = params.launch_of(stage)
    job = [f"--worker_num={launch.worker_num}", f"--local_worker_num={launch.local_worker_num}", f"--log_dir={logs}"]
    program = ["python", "-m", "moviegen", "step", "--stage", str(stage), "--config", str(config)]
    return [*job, "--join=True", "--sim_level=1", "--sim_rank_id=0", *program]
