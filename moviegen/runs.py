"""What a run leaves on disk: `outputs/<scale>/runs/<program>-<fingerprint>/`.

    manifest.json   what ran, on what, from what, for how long, and whether it finished
    params.yaml     every parameter, resolved: `python -m moviegen ... --config` this file repeats the run
    metrics.jsonl   one line a step or item, written as it happens
    logs/           the job's output
    ...             what the program makes

The folder's name holds the fingerprint, so a run with other parameters never overwrites this one, and going back to
earlier parameters finds the earlier results.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import psutil
import yaml

from moviegen import programs
from moviegen.config import ConfigError, Params, outputs_folder, project_root
from moviegen.files import replacing

PACKAGES = ("mindspore", "numpy", "scikit-image", "decord", "av", "papermill", "nbconvert")


class RunBusy(RuntimeError):
    """Another process is writing into this run folder."""


@dataclass(frozen=True)
class Run:
    """One run of one program; see the module's docstring for what its folder holds."""

    program: programs.Program
    params: Params
    fingerprint: str
    folder: Path

    @property
    def name(self) -> str:
        """Folder name, which is the run's id in the report."""
        return self.folder.name

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line."""
        return self.folder / "metrics.jsonl"

    @property
    def log_folder(self) -> Path:
        """Where the job's processes write their output."""
        return self.folder / "logs"

    @property
    def params_path(self) -> Path:
        """The resolved parameters."""
        return self.folder / "params.yaml"

    @property
    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` holds; empty where the run never started."""
        path = self.folder / "manifest.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of the run it comes from."""
        return {"run": self.name, "fingerprint": self.fingerprint, "seed": self.params.seed, "versions": versions()}

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that decide the result, as the manifest has them."""
        return json.loads(json.dumps(self.program.parameters(self.params)))

    @property
    def complete(self) -> bool:
        """Whether the program ran to its end."""
        return self.manifest.get("status") == "complete"

    def upstream(self, name: str) -> Run:
        """The finished run of a program this one builds on.

        Raises:
            ConfigError: it has not been run; the message says how.
        """
        run = find(self.params, name)
        if not run.complete:
            self.write_params()  # the command names this file
            command = " ".join(("python -m moviegen", *run.program.arguments, "--config", str(self.params_path)))
            raise ConfigError(f"{self.program.name} needs {run.name}, which is not complete: run `{command}` first")
        return run

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl`; a half-written last line is left out."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def command(self) -> tuple[str, ...]:
        """What runs this program again with just these parameters."""
        return (sys.executable, "-m", "moviegen", *self.program.arguments, "--config", str(self.params_path))

    def write_params(self) -> None:
        """Writes `params.yaml`; see `check_same`."""
        check_same(self)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.params_path, yaml.safe_dump(self.params.model_dump(mode="json"), sort_keys=False))


def find(params: Params, name: str) -> Run:
    """The run of a program with these parameters, whether or not it exists yet."""
    mark = programs.fingerprint(params, name)
    return Run(programs.find(name), params, mark, outputs_folder(params) / "runs" / f"{name}-{mark[:8]}")


@contextmanager
def record(run: Run) -> Iterator[Run]:
    """Holds the run's lock and keeps its manifest while a program works.

    Raises:
        RunBusy: another process holds the lock.
        ConfigError: the folder is another run's; see `check_same`.
    """
    run.write_params()
    with _lock(run):
        started = time.time()
        earlier = run.manifest.get("seconds", 0.0)
        manifest = {"status": "running", "started": _utc(started), **provenance(run)}
        _write_manifest(run, manifest)
        status = "failed"
        try:
            yield run
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            seconds = earlier + time.time() - started
            manifest |= {"status": status, "seconds": round(seconds, 2), "peak_memory_bytes": peak_memory()}
            _write_manifest(run, manifest | {"finished": _utc(time.time())})


def check_same(run: Run) -> None:
    """Refuses a folder whose manifest is of other parameters: two fingerprints that begin alike, or an edited file.

    Raises:
        ConfigError: the parameters that differ are listed.
    """
    earlier, wanted = run.manifest.get("parameters"), run.parameters
    if earlier is None or earlier == wanted:
        return
    raise ConfigError(
        f"{run.folder} holds a run of {run.program.name} with other parameters; it is left as it is. Move it away, or "
        "repeat it with its own parameters. They differ in\n" + "\n".join(differences(earlier, wanted))
    )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Parameters that are not the same, a line each."""
    before, after = _flat(there), _flat(now)
    return [
        f"  {name}: {before.get(name, 'absent')} there, {after.get(name, 'absent')} now"
        for name in {**before, **after}
        if name not in before or name not in after or before[name] != after[name]
    ]


def provenance(run: Run) -> dict[str, Any]:
    """What ran, where, from what."""
    program = run.program
    return {
        "program": program.name,
        "fingerprint": run.fingerprint,
        "command": " ".join(("python", *run.command()[1:])),
        "parameters": program.parameters(run.params),
        "upstream": {name: find(run.params, name).name for name in program.needs(run.params)},
        "commit": git_commit(),
        "versions": versions(),
        "machine": machine(),
    }


def git_commit() -> str:
    """The checkout's commit, with `+changes` where files differ from it; `unknown` outside git."""
    root = project_root()
    try:
        commit = subprocess.run(("git", "rev-parse", "HEAD"), cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(("git", "status", "--porcelain"), cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Python and the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The machine the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = psutil.virtual_memory().total
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory, "system": platform.system()}


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MetricsWriter:
    """Appends JSON objects to a run's `metrics.jsonl`, each line in one write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.drop_after(math.inf)  # a killed writer may have left half a line

    def write(self, **values: Any) -> None:
        """Adds one line; floats are kept to full precision."""
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def drop_after(self, step: float) -> None:
        """Removes the lines of steps past `step`: a resumed run writes them again."""
        if not self._path.exists():
            return
        lines = [line for line in self._path.read_text().split("\n")[:-1] if json.loads(line).get("step", 0) <= step]
        write_text(self._path, "".join(line + "\n" for line in lines))


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of an indented JSON value."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value."""
    if not isinstance(values, Mapping) or not values:
        return {prefix: values}
    inner = (_flat(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in values.items())
    return {name: value for one in inner for name, value in one.items()}


def _write_manifest(run: Run, manifest: Mapping[str, Any]) -> None:
    write_json(run.folder / "manifest.json", manifest)


@contextmanager
def _lock(run: Run) -> Iterator[None]:
    lock = filelock.FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunBusy(f"another process is writing into {run.folder}: wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
