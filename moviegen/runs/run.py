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
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from moviegen.config import ConfigError, Launch, Params, from_root, outputs_folder
from moviegen.device.compiled import Form
from moviegen.launch.job import RUN_VARIABLE, Job, msrun_command
from moviegen.launch.lock import FolderInUse, locked
from moviegen.runs import fingerprint as fingerprints
from moviegen.runs import registry
from moviegen.runs.files import read_json, write_json, write_text
from moviegen.runs.folders import walk
from moviegen.runs.machine import git_commit, machine, peak_memory, versions
from moviegen.runs.metrics import read_metrics


class RunBusy(RuntimeError):
    """Another process is writing into this run folder."""


@dataclass(frozen=True)
class Run:
    """One run of one program; see the module's docstring for what its folder holds."""

    program: registry.Program
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
        """What `manifest.json` holds; empty where the run never started.

        Raises:
            ConfigError: it is damaged.
        """
        path = self.folder / "manifest.json"
        return (
            read_json(path, "remove it; the run is then done again, from its last checkpoint") if path.exists() else {}
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of the run it comes from."""
        return {"run": self.name, "fingerprint": self.fingerprint, "seed": self.params.seed, "versions": versions()}

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that decide the result, as the manifest has them."""
        return json.loads(json.dumps(self.program.parameters(self.params)))

    @property
    def operators(self) -> Form | None:
        """The form of the operators that compute it; None where no network does."""
        return fingerprints.operators(self.params, self.program.name)

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
            command = run.command_line(self.params_path)
            raise ConfigError(f"{self.program.name} needs {run.name}, which is not complete: run `{command}` first")
        return run

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl`; see `read_metrics`."""
        return read_metrics(self.metrics_path)

    @property
    def launch(self) -> Launch:
        """The job that computes it."""
        return self.program.launch(self.params)

    def job(self, config: Path | None = None) -> Job:
        """The processes that run this program with just these parameters; `config`: another file of them."""
        settings = self.launch
        names = ("worker_num", "local_worker_num", "master_addr", "node_rank", "bind_core")
        return Job(
            command=("python", "-m", "moviegen", *self.program.arguments, "--config", str(config or self.params_path)),
            log_dir=self.log_folder,
            master_port=settings.master_port or None,
            metrics=(self.metrics_path,),
            run=self.name,
            operators=form.name if (form := self.operators) else "",
            **{name: getattr(settings, name) for name in names},
        )

    def job_with(self, others: Sequence[Run]) -> Job:
        """The one process that computes this run and then others of programs that share its compiled graphs."""
        job, last = self.job(), [other.program.arguments[-1] for other in others]
        end = len(job.command) - 2  # where `--config FILE` begins
        return replace(
            job,
            command=(*job.command[:end], *last, *job.command[end:]),
            metrics=tuple(run.metrics_path for run in (self, *others)),
            run=":".join(run.name for run in (self, *others)),
        )

    def command_line(self, config: Path | None = None) -> str:
        """The same as one types it."""
        job = self.job(config)
        return shlex.join(msrun_command(job) if job.uses_msrun else job.command)

    def write_params(self) -> None:
        """Writes `params.yaml`; see `check_same`."""
        check_same(self)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.params_path, yaml.safe_dump(self.params.model_dump(mode="json"), sort_keys=False))


def find(params: Params, name: str) -> Run:
    """The run of a program with these parameters, whether or not it exists yet."""
    mark = fingerprints.fingerprint(params, name)
    return Run(registry.find(name), params, mark, outputs_folder(params) / "runs" / f"{name}-{mark[:8]}")


@contextmanager
def record(run: Run, **facts: Any) -> Iterator[Run]:
    """Holds the run's lock and keeps its manifest while a program works.

    Args:
        facts: what the manifest says besides.

    Raises:
        RunBusy: another process holds the lock.
        ConfigError: the folder is another run's, or another run was asked for; see `check_same`, `check_asked`. Or
            what the run's parameters name changed while it was computed, which then is not complete.
    """
    check_asked(run)
    run.write_params()
    with _lock(run):
        path, started = run.folder / "manifest.json", time.monotonic()  # which nobody sets back
        earlier = run.manifest.get("seconds", 0.0)
        manifest = {"status": "running", "started": _utc_now(), **provenance(run), **facts}
        write_json(path, manifest)
        status = "failed"
        try:
            yield run
            _check_unchanged(run)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            seconds = earlier + time.monotonic() - started
            manifest |= {"status": status, "seconds": round(seconds, 2), "peak_memory_bytes": peak_memory()}
            write_json(path, manifest | {"finished": _utc_now()})


def check_asked(run: Run) -> None:
    """Refuses another run than the one this process was started for: whoever waits for that one would find none.

    Raises:
        ConfigError: the message names what has changed since, where that shows.
    """
    names = os.environ.get(RUN_VARIABLE, "").split(":")
    if names == [""] or run.name in names:
        return
    asked = next((name for name in names if name.startswith(f"{run.program.name}-")), names[0])
    changed = _changed_since(run, run.folder.with_name(asked) / "params.yaml")
    raise ConfigError(
        f"{asked} was asked for, and {run.name} is what follows from the files and the code of now: they changed since "
        f"({', '.join(changed) or 'which of them does not show'}). Start again what asked for it; nothing is lost"
    )


def _changed_since(run: Run, mark: Path) -> list[str]:
    """Files of the code, and of the folders that parameters name, that came or changed after a file was written."""
    if not mark.is_file():
        return []
    since, params = mark.stat().st_mtime, run.params
    parameter_paths = {path for program in registry.ALL for path in program.local_paths(params).values() if path}
    suffixes_of = {Path(__file__).parents[1]: (".py",)} | {
        from_root(path): (*fingerprints.CLIPS, *fingerprints.MODELS) for path in parameter_paths
    }
    return sorted(
        str(path)
        for folder, suffixes in suffixes_of.items()
        for path in (walk(folder) if folder.is_dir() else [folder])
        if path.suffix.lower() in suffixes and path.is_file() and path.stat().st_ctime > since
    )


def _check_unchanged(run: Run) -> None:
    changed = fingerprints.changed_files(run.params, run.program.name)
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: what lies there changed while {run.name} was computed from it, which is not taken "
            "for finished: start it again"
        )


def check_same(run: Run) -> None:
    """Refuses a folder whose manifest is of other parameters: two fingerprints that begin alike, or an edited file.

    Raises:
        ConfigError: the parameters that differ are listed.
    """
    earlier = run.manifest.get("parameters")
    if earlier is None or earlier == run.parameters:
        return
    raise ConfigError(
        f"{run.folder} holds a run of {run.program.name} with other parameters; it is left as it is. Move it away, or "
        "repeat it with its own parameters. They differ in\n" + "\n".join(differences(earlier, run.parameters))
    )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Parameters that are not the same, a line each."""
    before, after = flat(there), flat(now)
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
        "command": run.command_line(),
        "parameters": program.parameters(run.params),
        "upstream": {name: find(run.params, name).name for name in program.needs(run.params)},
        "commit": git_commit(),
        "versions": versions(),
        "machine": machine(),
        **({"operators": str(run.operators)} if run.operators else {}),
        "deterministic": run.params.launch.deterministic,
    }


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value."""
    if not isinstance(values, Mapping) or not values:
        return {prefix: values}
    inner = (flat(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in values.items())
    return {name: value for one in inner for name, value in one.items()}


@contextmanager
def _lock(run: Run) -> Iterator[None]:
    try:
        with locked(run.folder):
            yield
    except FolderInUse as error:
        raise RunBusy(f"another process is writing into {run.folder}: {error}") from None


def _utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
