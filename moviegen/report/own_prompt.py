"""A clip of a prompt of one's own: what is asked for, the job that makes it, and how far that is.

`panel` asks in JupyterLab, `demo` on a local web page. What works is `python -m moviegen sample --prompts`, in
processes of its own, and what it makes is kept below `outputs/<scale>/samples/`.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from moviegen import runs
from moviegen.config import ConfigError, Params, Sample, from_root, outputs_folder
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.launch.watch import JobError, WorkerError, last_lines
from moviegen.report import notebook, sections
from moviegen.report.wording import in_checkout
from moviegen.runs.files import write_text
from moviegen.runs.fingerprint import digest

SCHEDULES: tuple[str, ...] = get_args(Sample.model_fields["schedule"].annotation)
WEIGHTS_OF = ("tae-mixkit", "stage3")  # the programs whose weights sample
OWN, SHIPPED = "trained by this report", "shipped with the repository"
NO_WEIGHTS = "There are no weights to sample with yet: run 06_training.ipynb with stage 3 first, or `make report`."
NO_PROMPT = "write a prompt first"
ERROR = "error: "  # as a program's last words begin
STOPPED = "stopped: what was computed of this clip is not kept"
TICK_SECONDS = 0.5  # between two looks at how far a clip is
_ONE_AT_A_TIME = threading.Lock()  # jobs: one that was stopped goes on until it says something


@dataclass(frozen=True)
class Asked:
    """What is asked for, checked by the command that makes it but for the prompt.

    Args:
        weights: options of `sample` that name weights; none: those of the report's own runs.
    """

    prompt: str
    seed: int
    steps: int
    guidance: float
    schedule: str
    weights: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Of `sample --prompts FILE`."""
        values = {name: getattr(self, name) for name in ("seed", "steps", "guidance", "schedule")}
        return tuple(word for name, value in values.items() for word in (f"--{name}", f"{value}")) + self.weights

    def caption(self, clip: Path) -> str:
        """What stands under the clip: how it was made, and its file."""
        settings = f"seed {self.seed}, {self.steps} steps, {self.schedule}, guidance {self.guidance:g}"
        return f"{self.prompt} ({settings}): {in_checkout(str(clip))}"


FIELDS = tuple(field.name for field in fields(Asked))  # of a form


@dataclass(frozen=True)
class Told:
    """How far a clip is, in words and as a share of its Euler steps and its decoding."""

    words: str
    share: float


class NotMadeError(RuntimeError):
    """There is no clip; the message is what the command line says."""


class Stopped(RuntimeError):
    """Who asked for the clip wants it no more."""


def weights(params: Params) -> dict[str, tuple[str, ...]]:
    """Which weights there are to sample with, the report's own first: title -> options of `sample` that name them."""
    found: dict[str, tuple[str, ...]] = {}
    if all(sections.is_complete(run := runs.find(params, name)) for name in WEIGHTS_OF):
        found[f"{OWN} ({run.name})"] = ()
    shipped = params.shipped
    if shipped.transformer and all(from_root(path).is_file() for path in (shipped.transformer, shipped.tae)):
        files = {"--dit": shipped.transformer, "--tae": shipped.tae}
        found[SHIPPED] = tuple(f"{word}" for name, path in files.items() for word in (name, from_root(path)))
    return found


def read(values: Mapping[str, Any]) -> Asked:
    """What a form holds; a prompt is one line.

    Raises:
        NotMadeError: it holds no prompt.
    """
    prompt = " ".join(str(values["prompt"]).split())
    if not prompt:
        raise NotMadeError(f"{ERROR}{NO_PROMPT}")
    return Asked(**{**values, "prompt": prompt})


class Making:
    """A clip that is being made, while a thread of its own waits for the job: one clip is made at a time."""

    def __init__(self, params: Params, asked: Asked) -> None:
        decides = [asked.prompt, asked.options, params.sample.model_dump(mode="json")]
        self.folder = outputs_folder(params) / "samples" / f"asked-{digest(decides)}"
        self._asked, self._stopped, self._since = asked, threading.Event(), time.monotonic()
        self._line: Mapping[str, Any] | None = None
        self._running: Future[None] = Future()
        # a daemon, as nobody waits for a clip whose page is closed
        threading.Thread(target=self._work, args=(params,), daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether it ended, in whatever way."""
        return self._running.done()

    @property
    def told(self) -> Told:
        """How far it is now."""
        if self._stopped.is_set():
            return Told("stopping", 0)
        if self._line is None or self._line["kind"] == "state":
            seconds = time.monotonic() - self._since
            return Told(f"{'starting' if self._line is None else 'compiling'}, {seconds:.0f} s", 0)
        step, steps = self._line["step"], self._line["steps"]
        words = f"step {step} of {self._asked.steps}" if step < self._asked.steps else "decoding"
        return Told(words, step / steps)

    def stop(self) -> None:
        """Ends it as soon as the job says something: after the step, or the compilation, that goes on."""
        self._stopped.set()

    def clip(self) -> Path:
        """The file, once it is over.

        Raises:
            NotMadeError: there is none.
        """
        try:
            self._running.result()
        except Stopped:
            raise NotMadeError(STOPPED) from None
        except (JobError, ConfigError, OSError, ValueError) as error:  # the last of a prompt that is no UTF-8
            raise NotMadeError(said(error)) from None
        return next(path for path in sorted(self.folder.glob("000.*")))

    def _work(self, params: Params) -> None:
        try:
            with _ONE_AT_A_TIME:
                if self._stopped.is_set():
                    raise Stopped
                self._run(params)
        except BaseException as error:
            self._running.set_exception(error)
        else:
            self._running.set_result(None)

    def _run(self, params: Params) -> None:
        write_text(self.folder / "prompt.txt", f"{self._asked.prompt}\n")
        write_text(self.folder / "params.yaml", yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
        run_job(job_of(params, self._asked, self.folder), self._moved)

    def _moved(self, line: Mapping[str, Any]) -> None:
        if self._stopped.is_set():
            raise Stopped
        if self._line is None or self._line["kind"] != line["kind"]:
            self._since = time.monotonic()
        self._line = line


def job_of(params: Params, asked: Asked, folder: Path) -> Job:
    """`sample --prompts` on the processes that the report samples on."""
    files = {"--config": folder / "params.yaml", "--prompts": folder / "prompt.txt", "--output": folder}
    words = (f"{word}" for option in files.items() for word in option)
    return replace(
        notebook.job(runs.find(params, "sample")),
        command=("python", "-m", "moviegen", "sample", *words, *asked.options),
        log_dir=folder / "logs",
        metrics=(folder / "metrics.jsonl",),
        run="",
    )


def said(error: Exception) -> str:
    """What the command line says of an error: its last words from `error:` on, where it has such."""
    if isinstance(error, WorkerError):
        _, begins, words = f"\n{last_lines(error.log)}".rpartition(f"\n{ERROR}")
        if begins:
            return f"{ERROR}{words}".strip()
    return f"{ERROR}{error}"


def shown(words: str) -> str:
    """What a form says, as HTML: an error may have several lines."""
    return f'<span style="white-space: pre-wrap">{html.escape(words)}</span>'
