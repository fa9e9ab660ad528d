"""What all notebooks call: `section = open_section("data", globals())`, then `section.launch(...)`, `section.run(...)`.

What a notebook shows of these runs is its page's, a module of `moviegen.report.pages`.
"""

from __future__ import annotations

import html
import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import HTML, clear_output, display

from moviegen import runs
from moviegen.config import (
    ConfigError,
    Params,
    load,
    merge,
    nearest,
    parse,
    parse_overrides,
    project_root,
    read_file,
    with_numbers,
)
from moviegen.data.assets import provided
from moviegen.launch.fitting import check_fits
from moviegen.launch.job import Job, ascend_environment
from moviegen.launch.run import run_job
from moviegen.report import jupyter, markup, planned, prospect, provenance, sections
from moviegen.report.progress import Progress
from moviegen.report.wording import typed
from moviegen.runs import Run, fingerprint, registry

GROUPS = tuple(name for name in Params.model_fields if name != "scale")
PARAMETERS = ("scale", "extends", "overrides", "stage", *GROUPS)
NOT_PARAMETERS = {"In", "Out", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}  # IPython's and papermill's own
DOTTED = "_dotted"  # the variable that holds what was given by a dotted name
SCREEN = "_screen"  # the one that holds where cells show things, where that is not the notebook
_DOTTED_LINE = re.compile(r"^([\w.-]*[.-][\w.-]*) = ")
MAY_BE_SILENT = ("data", "text")  # for as long as a file, or an encoder's first captions, take
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its fonts is nothing for a page
PLAIN_DATA = (str, int, float, bool, list, dict, type(None))


class Screen:
    """Where a cell shows what it does not return: below itself."""

    @property
    def is_notebook(self) -> bool:
        """Whether what is shown is kept."""
        return jupyter.is_notebook()

    @property
    def is_live(self) -> bool:
        """Whether a person is there."""
        return jupyter.is_live()

    def show(self, content: Any) -> None:
        """Adds something."""
        display(content)

    def clear(self) -> None:
        """Takes away what the cell has shown, once it shows something else."""
        clear_output(wait=True)


@dataclass(frozen=True)
class OpenSection:
    """A section being executed: its parameters, the runs it may start and show, and where it shows them."""

    section: sections.Section
    params: Params
    screen: Screen = field(default_factory=Screen, compare=False)

    @property
    def stage(self) -> int:
        """The training stage; an error in other sections."""
        if self.section.stage is None:
            raise ValueError(f"section {self.section.name} is not a training stage")
        return self.section.stage

    def launch(self, program: str, with_upstream: bool = False) -> Run | None:
        """Runs a program unless its run is complete, and says so; None where it cannot or need not run, or not yet.

        Args:
            with_upstream: also runs what it needs of other notebooks and what is not there, first.

        Raises:
            ConfigError: it cannot fit the cards; see `check_fits`.
            WorkerError: the program failed; the message holds its traceback.
        """
        if program not in self.section.launches:
            raise KeyError(f"{program!r} is not launched by {self.section.name}: add it to moviegen/report/sections.py")
        if not registry.is_asked_for(self.params, program):
            return None
        if path := self.section.replacement(self.params, program):
            self.screen.show(markup.note(f"{program} is not run: {html.escape(path)} is used instead."))
            return None
        run = runs.find(self.params, program)
        if not run.complete:
            if not sections.can_run_here(self.params, program):
                run.write_params()  # the command that is shown names this file
                self.screen.show(provenance.would_run(run, job(run)))
                if (plan := planned.planned(self.params, program)) is not None:
                    self.screen.show(plan)
                return None
            needed = sections.missing(self.params, program)
            for name in (*needed, program) if with_upstream else (program,):
                check_fits(self.params, name)
            if needed and not with_upstream:
                self.screen.show(prospect.needs(self.params, program, needed))
                return None
            for name in needed:
                self._compute(runs.find(self.params, name))
            self._compute(run)
        self.screen.clear()
        self.screen.show(provenance.line(run))
        return run

    def compute_together(self, *programs: str) -> None:
        """Has one process compute those of some programs that are not complete; it compiles the graphs they share once.

        `launch` then finds them, and computes what cannot be computed so.
        """
        used = [name for name in programs if not self.section.replacement(self.params, name)]
        waiting = [run for run in (runs.find(self.params, name) for name in used) if not run.complete]
        names = {run.program.name for run in waiting}
        has_one_job = len({run.launch.worker_num for run in waiting}) == 1
        if not has_one_job or len(waiting) < 2 or not all(sections.can_run_here(self.params, name) for name in names):
            return
        for name in names:
            check_fits(self.params, name)
        if names.issuperset(one for name in names for one in sections.missing(self.params, name)):
            self._compute(waiting[0], waiting[1:])  # else `launch` says what is not there

    def run(self, program: str) -> Run | None:
        """The finished run of a program, or None; also where something else is used in its place."""
        if program not in self.section.launches + self.section.reads:
            raise KeyError(f"{program!r} is not read by {self.section.name}: add it to moviegen/report/sections.py")
        if program not in self.section.programs(self.params):
            return None
        run = runs.find(self.params, program)
        try:
            return run if run.complete else None
        except ConfigError as error:
            self.screen.show(markup.note(f"<b>{html.escape(program)}</b> is left out: {html.escape(str(error))}"))
            return None

    def stages(self) -> dict[int, Run | None]:
        """The finished run of each training stage, or None."""
        return {stage: self.run(f"stage{stage}") for stage in self.params.stages}

    def tae_runs(self) -> dict[str, Run | None]:
        """The finished run of each autoencoder, or None."""
        return {name: self.run(name) for name in sections.TAE_RUNS}

    def provenance(self) -> HTML:
        """Where this page's numbers come from."""
        return provenance.table_of_runs([runs.find(self.params, name) for name in self.section.programs(self.params)])

    def _compute(self, run: Run, others: Sequence[Run] = ()) -> None:
        for one in (run, *others):
            one.write_params()
        started = job(run, others)
        if started.host_num > 1:
            self.screen.show(provenance.other_hosts(started))
        _follow(started, run.name, self.screen.is_live)
        for one in (run, *others):
            if not one.complete:
                output = f"its output: {started.log_dir}"
                raise RuntimeError(f"{one.name} ended without an error but did not finish; {output}")


def take_dotted_names() -> None:
    """Has this kernel take what papermill writes for `-p train.steps 50`, also over a params file.

    That is `train.steps = 50`: an attribute of whatever `train` is. `stages.2.train.steps = 50` is not even Python. In
    a cell of papermill's such a line fills a dictionary instead, of which `open_section` takes it.
    """
    if (shell := get_ipython()) is None:
        return
    shell.user_ns[DOTTED] = {}
    if _with_items not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_with_items)


def _with_items(lines: list[str]) -> list[str]:
    if lines[:1] != ["# Parameters\n"]:  # as papermill begins its own; in a reader's, attributes are what they are
        return lines
    return [_DOTTED_LINE.sub(rf'{DOTTED}["\1"] = ', line) for line in lines]


def open_section(notebook: str, variables: Mapping[str, Any]) -> OpenSection:
    """Collects a notebook's parameters: `params/<scale>.yaml`, the groups given over it, dotted names and `overrides`.

    Where a params file was given that extends another (papermill's `-f`), the other takes the place of the scale's. In
    the notebook of a training stage overrides are of that stage alone, as on the command line of `train --stage`.

    What the parameters name of `data assets` is fetched where it is not there.

    A person is shown which runs the notebook needs, and which are there.

    What was remembered of files and code is forgotten: a kernel of JupyterLab outlives what is edited meanwhile.

    Args:
        notebook: its file name without number and suffix.
        variables: its `globals()`.

    Raises:
        ConfigError: an unknown name (papermill itself only warns), or a value that cannot be.
    """
    screen = variables.get(SCREEN) or Screen()
    if SCREEN not in variables:  # whoever derives a page again looks at files and code once
        fingerprint.forget()
    if not any(isinstance(value, OpenSection) for value in variables.values()):  # else they may be the reader's own
        _refuse_unknown(variables)
    section = sections.find(notebook, _stage(variables.get("stage")))
    scale, extends = variables.get("scale", "tiny"), variables.get("extends")
    groups = {name: variables[name] for name in GROUPS if variables.get(name) is not None}
    if extends:
        base = _extended(extends)
    elif len(groups) == len(GROUPS):
        base = {}  # a whole params file, whose scale need not be one of params/
    else:
        base = load(str(scale)).model_dump()
    dotted = shlex.join(f"{name}={typed(value)}" for name, value in variables.get(DOTTED, {}).items())
    overrides = parse_overrides(f"{dotted} {variables.get('overrides') or ''}", section.stage)
    content, source = merge(base, with_numbers({"scale": scale, **groups})), extends or f"{scale}.yaml"

    def read(**more: Any) -> Params:
        return parse(content, {**overrides, **more}, origin=f"params/{source} and the notebook")

    opened = OpenSection(section, provided(read), screen)
    if screen.is_notebook:
        screen.show(jupyter.style())
    if screen.is_live:
        screen.show(prospect.table(opened.params, section))
    return opened


def _stage(given: Any) -> Any:
    """A stage by its number: `papermill -r`, and YAML in quotes, give text."""
    return int(given) if isinstance(given, str) and given.isdecimal() else given


def _extended(name: Any) -> dict[str, Any]:
    """The params file that papermill's `-f` file extends; where that one lies papermill does not say."""
    path = project_root() / "params" / os.path.expanduser(str(name))
    if not path.is_file():
        raise ConfigError(f"extends: there is no file {path}: in a notebook it is looked for from params/")
    return read_file(path)


def job(run: Run, others: Sequence[Run] = ()) -> Job:
    """How a run is started from here: with the device's variables, and ended where it writes nothing for too long.

    Args:
        others: what the same process computes after it.
    """
    settings, asked = run.params.launch, run.job_with(others)
    return replace(
        asked,
        # hosts share the run's folder, and each sets its own old logs aside
        log_dir=asked.log_dir / f"host{asked.node_rank}" if asked.node_rank else asked.log_dir,
        environment=_environment(run) if settings.device == "Ascend" else {},
        stall_timeout=None if run.program.name in MAY_BE_SILENT else settings.stall_timeout,
    )


def _environment(run: Run) -> dict[str, str]:
    """An Ascend job's variables, with the values of those that the caller has exported."""
    stage = run.program.trained_stage
    has_videos = stage is not None and run.params.recipes[stage].dataset.longest > 1
    return {
        name: os.environ.get(name, value)
        for name, value in ascend_environment(run.launch.local_worker_num, has_videos).items()
    }


def _follow(started: Job, name: str, is_live: bool) -> None:
    """Runs a job to its end, and shows how far it is: by a bar, and to a person by a curve above it too."""
    watching: list[Any] = []
    if is_live:
        from moviegen.report.live import LiveCurve  # with matplotlib: not for each notebook

        watching.append(LiveCurve(name))
    watching.append(Progress(name))  # last: a bar is redrawn in its line only while nothing else is shown after it

    def moved(line: dict[str, Any]) -> None:
        for one in watching:
            one(line)

    try:
        run_job(started, on_progress=moved)
    finally:
        for one in watching:
            one.close()


def _refuse_unknown(variables: Mapping[str, Any]) -> None:
    for name, value in variables.items():
        is_given = not name.startswith("_") and name not in NOT_PARAMETERS and isinstance(value, PLAIN_DATA)
        if is_given and name not in PARAMETERS:
            hint = nearest(name, PARAMETERS) or f"; there are: {', '.join(PARAMETERS)}"
            raise ConfigError(f"unknown notebook parameter {name!r}{hint}")
