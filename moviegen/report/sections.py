"""The report's sections in reading order, and when one has to be executed again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen import device, runs
from moviegen.config import ConfigError, Params, nearest, outputs_folder, project_root
from moviegen.proofs import records
from moviegen.report import bibliography
from moviegen.report.templates import TEMPLATE
from moviegen.report.wording import listed
from moviegen.runs import Run, hashes, registry
from moviegen.runs import fingerprint as fingerprints

NOTEBOOK_CODE = "moviegen.report.notebook"  # what every notebook calls
COMPARISON = "reproduced.json"  # in a scale's folder: how its report compares with a second one
PLANNED_BY = ("base/cards.yaml", "base/ascend.yaml", "1B.yaml", "5B.yaml", "30B.yaml")  # in params/


@dataclass(frozen=True)
class Section:
    """One page of the report: a notebook, executed with one set of parameters."""

    name: str
    title: str
    notebook: str
    launches: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    stage: int | None = None
    lists_figures: bool = False
    shows_proofs: bool = False

    @property
    def topic(self) -> str:
        """The notebook's name without its number."""
        return self.notebook.removesuffix(".ipynb").partition("_")[2]

    @property
    def code(self) -> str:
        """The module that holds what the notebook shows."""
        return f"moviegen.report.pages.{self.topic}"

    @property
    def source(self) -> Path:
        """The notebook as committed."""
        return project_root() / "notebooks" / self.notebook

    @property
    def page(self) -> str:
        """File name of its HTML page."""
        return "index.html" if self.name == "overview" else f"{self.name}.html"

    def executed(self, params: Params) -> Path:
        """The notebook with its outputs."""
        return outputs_folder(params) / "notebooks" / f"{self.name}.ipynb"

    def failed(self, params: Params) -> Path:
        """The notebook as far as it came, where it failed when it was executed last."""
        return self.executed(params).with_suffix(".failed.ipynb")

    def shown(self, params: Params) -> Path:
        """What its page is made from: the notebook that failed, where there is one."""
        failed = self.failed(params)
        return failed if failed.is_file() else self.executed(params)

    def replacement(self, params: Params, program: str) -> str:
        """The file or folder that is used here in the place of a program's run; empty: none."""
        return registry.replacement(params, program, self.stage)

    def programs(self, params: Params) -> tuple[str, ...]:
        """Those whose runs it starts or shows: all it names but the replaced ones, and what has nothing to do."""
        named = (name for name in self.launches + self.reads if registry.is_asked_for(params, name))
        return tuple(name for name in named if not self.replacement(params, name))


def _training(stage: int, title: str) -> Section:
    return Section(
        name=f"training-{stage}",
        title=f"Training, stage {stage}: {title}",
        notebook="06_training.ipynb",
        launches=("latents", "text", f"stage{stage}"),
        stage=stage,
    )


TAE_RUNS = ("tae-image", "tae-opl-off", "tae-opl-on", "tae-mixkit")
STAGES = ("stage1", "stage2", "stage3")
SECTIONS = (
    Section("overview", "Overview", "01_overview.ipynb",
            reads=("tae-evaluation", "text", *STAGES, "sample", "shipped", "retrieval")),
    Section("data", "Data", "02_data.ipynb", launches=("data",)),
    Section("tae-training", "Temporal Autoencoder: training", "03_tae_training.ipynb",
            launches=TAE_RUNS),
    Section("tae-evaluation", "Temporal Autoencoder: evaluation", "04_tae_evaluation.ipynb",
            launches=("tae-evaluation",), reads=TAE_RUNS),
    Section("transformer", "Diffusion transformer", "05_transformer.ipynb", launches=("count", "calibration")),
    _training(1, "images"),
    _training(2, "images and videos"),
    _training(3, "higher resolution"),
    Section("sampling", "Sampling", "07_sampling.ipynb", launches=("sample", "shipped", "retrieval", "schedule-error")),
    Section("parallelism", "Parallelism", "08_parallelism.ipynb", reads=STAGES, shows_proofs=True),
    Section("cost", "Cost and performance", "09_cost.ipynb", reads=("calibration", *TAE_RUNS, *STAGES, "sample")),
    Section("provenance", "Appendix: provenance", "10_provenance.ipynb", reads=tuple(registry.PROGRAMS),
            lists_figures=True, shows_proofs=True),
)  # fmt: skip


def find(notebook: str, stage: int | None) -> Section:
    """The section a notebook is, with this stage.

    Raises:
        ConfigError: the training notebook with another stage than 1, 2 or 3.
        KeyError: no such notebook.
    """
    same = [section for section in SECTIONS if section.topic == notebook]
    if not same:
        raise KeyError(f"no notebook {notebook!r}{nearest(notebook, [section.topic for section in SECTIONS])}")
    for section in same:
        if section.stage == stage:
            return section
    raise ConfigError(f"stage {stage!r}: {notebook} takes {[section.stage for section in same]}")


def execution_order() -> list[Section]:
    """Sections that launch programs first: what the others show is then there."""
    return sorted(SECTIONS, key=lambda section: not section.launches)


def can_run_here(params: Params, program: str) -> bool:
    """Whether this machine has the cards that a program needs."""
    if not registry.find(program).cards:
        return True
    return params.launch.device == "CPU" or device.accelerators() >= params.launch.local_worker_num


def published_site(params: Params) -> Path:
    """The folder of the published pages.

    Raises:
        ConfigError: nothing is published.
    """
    site = outputs_folder(params) / "html"
    if not (site / SECTIONS[0].page).is_file():
        raise ConfigError(f"{site}: no page is published there: run `make report` first")
    return site


def maker(program: str) -> Section:
    """The section that launches a program first."""
    return next(section for section in execution_order() if program in section.launches)


def is_complete(run: Run) -> bool:
    """Whether a run is there; a damaged one is not."""
    try:
        return run.complete
    except ConfigError:
        return False


def missing(params: Params, program: str) -> tuple[str, ...]:
    """The programs whose runs a program needs and that are not complete, each after those that it needs itself."""
    found: dict[str, None] = {}
    for name in registry.find(program).needs(params):
        if not is_complete(runs.find(params, name)):
            found |= dict.fromkeys((*missing(params, name), name))
    return tuple(found)


def waiting(params: Params, section: Section) -> dict[str, tuple[str, ...]]:
    """The programs of a section that cannot be launched yet, each with those that it needs of other sections."""
    here = [name for name in section.launches if name in section.programs(params) and can_run_here(params, name)]
    needed = {
        name: tuple(one for one in missing(params, name) if one not in section.launches)
        for name in here
        if not is_complete(runs.find(params, name))
    }
    return {name: others for name, others in needed.items() if others}


def waiting_words(waits: Mapping[str, Sequence[str]]) -> str:
    """`sample needs stage3, which is not there (06_training.ipynb)`."""
    needed = dict.fromkeys(name for others in waits.values() for name in others)
    makers = dict.fromkeys(maker(name).notebook for name in needed)
    are = "which are not there" if len(needed) > 1 else "which is not there"
    need = "needs" if len(waits) == 1 else "need"
    return f"{listed(waits)} {need} {listed(needed)}, {are} yet: {listed(makers)}"


def fingerprint(params: Params, section: Section) -> str:
    """16 hexadecimal digits over all that decides what a section's page shows, but for the runs' state."""
    parts: dict[str, Any] = {
        "notebook": hashes.file_hash(section.source),
        "parameters": params.model_dump(mode="json") if _shows_parameters(section) else None,
        "programs": {name: fingerprints.fingerprint(params, name) for name in section.programs(params)},
        "replacements": {name: section.replacement(params, name) for name in section.launches},
        "code": [fingerprints.code_hash(module, without=()) for module in (NOTEBOOK_CODE, section.code)],
        "templates": hashes.folder_hash(TEMPLATE, (".j2",)),
        "environment": hashes.file_hash(project_root() / "requirements.lock"),
        "plan": [hashes.file_hash(project_root() / "params" / name) for name in PLANNED_BY],
        "can run": [can_run_here(params, name) for name in section.launches],
    }
    if section.lists_figures:
        parts["references"] = hashes.file_hash(bibliography.path())
        parts["sections"] = [fingerprint(params, other) for other in SECTIONS if other is not section]
        parts["failed"] = [other.name for other in SECTIONS if other is not section and other.failed(params).is_file()]
        compared = outputs_folder(params) / COMPARISON
        parts["compared"] = hashes.file_hash(compared) if compared.is_file() else None
    if section.shows_proofs:
        measured = [topic for topic in records.TOPICS if records.path(topic).is_file()]
        parts["proofs"] = [(hashes.file_hash(records.path(topic)), records.code(topic)) for topic in measured]
    return fingerprints.digest(parts)


def state(params: Params, section: Section) -> dict[str, str | None]:
    """When each run the section shows was finished; else what it waits for, or that it is damaged, or None."""
    waits, shown = waiting(params, section), {name: runs.find(params, name) for name in section.programs(params)}
    return {
        run.name: f"waits for {', '.join(waits[name])}" if name in waits else _finished(run)
        for name, run in shown.items()
    }


def _finished(run: Run) -> str | None:
    try:
        return run.manifest.get("finished") if run.complete else None
    except ConfigError:
        return "damaged"


def mark(params: Params, section: Section) -> dict[str, Any]:
    """What an executed notebook was made from; kept in its metadata."""
    return {"fingerprint": fingerprint(params, section), "runs": state(params, section)}


def is_current(params: Params, section: Section) -> bool:
    """Whether the executed notebook is what executing it now would give."""
    path = section.executed(params)
    if not path.is_file():
        return False
    try:
        made_from = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("moviegen")
    except (ValueError, LookupError, TypeError, AttributeError):  # damaged
        return False
    return made_from == mark(params, section)


def _shows_parameters(section: Section) -> bool:
    """Sections that launch programs show only those programs' parameters, which their fingerprints cover."""
    return not section.launches
