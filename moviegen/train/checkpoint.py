"""Checkpoints: whole or not there at all, checked when read.

    checkpoints/step-000100/
        weights.safetensors     structural name -> weight
        optimizer.safetensors   moments and update count
        ema.safetensors         averaged weights, where there are any
        state.json              step, validation loss, state of the learning rate and the loss scale, what ran, and the
                                checksum of each file above and of this one

A checkpoint is written under a temporary name and renamed when all of it is on the disk; one that is dropped is renamed
before it is deleted. So a folder of that name is whole, whenever the job is killed, unless the disk itself loses data.
All arrays are whole: what N ranks saved, M ranks load.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from moviegen.config import Save
from moviegen.runs.arrays import Arrays, CheckpointError, save_arrays, stored_tensors
from moviegen.runs.files import FULL, NoSpaceError, checksum, flush_folder, read_json, write_json
from moviegen.runs.fingerprint import digest

NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds: the step, arrays by file (`weights`, `optimizer`, `ema`), and the rest.

    Of one that was saved, each array is read when it is asked for: 30B's state takes 352 GB, on each rank.
    """

    step: int
    files: Mapping[str, Arrays]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run: the newest `keep` stay, or the newest and those of the lowest validation loss."""

    def __init__(self, folder: Path, save: Save) -> None:
        self.folder, self.keep, self.policy = folder, save.keep, save.ckpt_save_policy

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes one and drops those that need not be kept.

        Raises:
            NoSpaceError: there is no room; nothing of it is left, and no other checkpoint was touched.
        """
        final = self.folder / f"step-{checkpoint.step:06d}"
        temporary = self.folder / f".{final.name}.tmp"
        self._sweep()
        try:
            self._write(checkpoint, temporary)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if _errno(error) not in FULL:
                raise
            raise NoSpaceError(
                f"cannot write the checkpoint of step {checkpoint.step} into {self.folder} ({error}): make room there "
                f"and start again, training goes on from the checkpoint before"
            ) from error
        if final.exists():  # a damaged one: training would have gone on from a whole one
            _hide(final)
        os.replace(temporary, final)
        flush_folder(self.folder)
        for folder in self._superfluous(checkpoint.step):
            _hide(folder)
        self._sweep()
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is named in a warning and passed over."""
        for folder in reversed(self._folders()):
            try:
                checkpoint = _open(folder)
                _check(folder, checkpoint)
                return checkpoint
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(f"{folder} is damaged ({error}): going back to the checkpoint before", stacklevel=2)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, whose bytes another rank has checked.

        Raises:
            CheckpointError: this rank cannot read it.
        """
        folder = self.folder / f"step-{step:06d}"
        try:
            return _open(folder)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"rank 0 goes on from {folder}, and another rank cannot read it ({error}): all hosts must share the "
                f"folder"
            ) from None

    def _write(self, checkpoint: Checkpoint, temporary: Path) -> None:
        temporary.mkdir(parents=True)
        for name, arrays in checkpoint.files.items():
            save_arrays(temporary / f"{name}.safetensors", arrays)
        sums = {name: checksum(temporary / f"{name}.safetensors") for name in checkpoint.files}
        state = {"step": checkpoint.step, "files": sums, **checkpoint.state}
        write_json(temporary / "state.json", state | {"checksum": digest(state)})

    def _superfluous(self, step: int) -> list[Path]:
        """What need not be kept now that `step` is saved."""
        folders = self._folders()
        past = [folder for folder in folders if _step(folder) > step]  # damaged: training went back past them
        valid = folders[: len(folders) - len(past)]
        if self.policy == "latest_k":
            return past + valid[: -self.keep]
        best = sorted(valid, key=_validation_loss)[: self.keep]
        return past + [folder for folder in valid[:-1] if folder not in best]

    def _folders(self) -> list[Path]:
        return sorted((folder for folder in self.folder.glob("step-*") if NAME.fullmatch(folder.name)), key=_step)

    def _sweep(self) -> None:
        """Deletes what is hidden: dropped checkpoints, and what a killed save left."""
        for hidden in self.folder.glob(".step-*"):
            shutil.rmtree(hidden)


def _open(folder: Path) -> Checkpoint:
    state = read_json(folder / "state.json", "it is of no use")
    if state.pop("checksum") != digest(state):
        raise CheckpointError("state.json does not match its checksum")
    files = {name: stored_tensors(folder / f"{name}.safetensors") for name in state["files"]}
    return Checkpoint(state["step"], files, state)


def _check(folder: Path, checkpoint: Checkpoint) -> None:
    for name, recorded in checkpoint.state["files"].items():
        if checksum(folder / f"{name}.safetensors") != recorded:
            raise CheckpointError(f"{name}.safetensors does not match its checksum")


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _validation_loss(folder: Path) -> float:
    try:
        loss = json.loads((folder / "state.json").read_text(encoding="utf-8")).get("validation_loss")
    except (OSError, ValueError):  # damaged: the first to go
        loss = None
    return float("inf") if loss is None else loss


def _hide(folder: Path) -> None:
    """A name under which no checkpoint is looked for: it can be deleted in more than one step."""
    os.replace(folder, folder.with_name(f".{folder.name}.old"))


def _errno(error: OSError | SafetensorError) -> int | None:
    """The system's error number; safetensors writes it into its message only."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None
