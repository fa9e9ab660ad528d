"""Going on from another run of the same stage: with more steps, another learning rate, another number of workers."""

from __future__ import annotations

from moviegen import runs
from moviegen.config import ConfigError, from_root
from moviegen.device.world import World
from moviegen.runs.files import read_json
from moviegen.train.checkpoint import Checkpoint, Checkpoints
from moviegen.train.state import newest


def start(run: runs.Run, stage: int, world: World) -> Checkpoint:
    """The newest whole checkpoint of the run that `train.resume` names; all ranks must ask together.

    Raises:
        ConfigError: there is no such run, it is damaged, of another program, has no checkpoint, has nothing left to do,
            or was run with other parameters and `force` is not set.
        ValueError: `train.resume` names none.
    """
    train = run.params.recipes[stage].train
    if train.resume is None:
        raise ValueError(f"{run.name} goes on from its own checkpoints only: it has no train.resume")
    folder, where = from_root(train.resume.run), f"stages.{stage}.train.resume.run"
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{where}: {folder} is not the folder of a run: it has no manifest.json")
    earlier = read_json(manifest, f"{where} must name another run")
    if earlier.get("program") != run.program.name:
        raise ConfigError(f"{where}: {folder} is a run of {earlier.get('program')}, not of {run.program.name}")
    there = earlier.get("parameters", {})
    different = runs.differences(_without_resume(there), _without_resume(run.parameters))
    if different and not train.resume.force:
        raise ConfigError(
            f"{where}: {folder} was run with other parameters. Set stages.{stage}.train.resume.force to true to go on "
            "with those of now all the same. They differ in\n" + "\n".join(different)
        )
    checkpoint = newest(Checkpoints(folder / "checkpoints", train.save, world))
    if checkpoint is None:
        raise ConfigError(f"{where}: {folder} has no whole checkpoint")
    if checkpoint.step >= train.steps:
        raise ConfigError(
            f"{where}: {folder} has done {checkpoint.step} steps, and train.steps is {train.steps}: raise it"
        )
    return checkpoint


def _without_resume(parameters: dict) -> dict:
    """Where a run started is no parameter of what it goes on with."""
    recipe = parameters.get("recipe", {})
    return parameters | {"recipe": recipe | {"train": {**recipe.get("train", {}), "resume": None}}}
