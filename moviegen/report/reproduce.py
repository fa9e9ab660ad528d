"""What a stranger types into a clone of this repository to compute again what a figure or table shows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from moviegen.config import ConfigError, Params, load
from moviegen.report.wording import typed
from moviegen.runs import Run
from moviegen.runs.run import flat

REPORT = ".venv/bin/python -m moviegen report"


def commands(runs: Sequence[Run]) -> str:
    """The commit of the runs, the environment, and the report with the parameters that differ from the scale's."""
    return "\n".join((*_checkouts(runs), "make setup", f"{REPORT} {shlex.join(_options(runs[0].params))}"))


def _checkouts(runs: Sequence[Run]) -> list[str]:
    """A line a commit; where they are several, each with the runs that it computed."""
    computed: dict[str, list[str]] = {}
    for run in runs:
        computed.setdefault(run.manifest.get("commit", "unknown"), []).append(run.name)
    return [_checkout(commit, names, len(computed) > 1) for commit, names in computed.items()]


def _checkout(commit: str, names: list[str], is_one_of_several: bool) -> str:
    sha, changed, _ = commit.partition("+")
    notes = [", ".join(names)] * is_one_of_several + ["with changes that are in no commit"] * bool(changed)
    if sha == "unknown":
        return f"# {', '.join(names)}: of code outside a repository"
    return f"git checkout {sha}" + (f"  # {', '.join(notes)}" if notes else "")


def _options(params: Params) -> list[str]:
    try:
        usual = load(params.scale)
        is_usual = params.assets == usual.assets
        base = flat((usual if is_usual else load(params.scale, {"assets": params.assets})).model_dump(mode="json"))
    except ConfigError:  # a params file of somebody's own, whose whole content the appendix has
        return ["--config", f"{params.scale}.yaml"]
    here = flat(params.model_dump(mode="json"))
    differing = {name: value for name, value in here.items() if name not in base or base[name] != value}
    if not is_usual:
        differing = {"assets": params.assets, **differing}
    ordered = sorted(differing, key=lambda name: name.startswith("stages."))  # what is said of all stages goes first
    return ["--config", params.scale, *(word for name in ordered for word in (f"--{name}", typed(differing[name])))]
