"""Checkpoints: whole or not there at all, checked when read.

    checkpoints/step-000100/
        weights.safetensors     structural name -> weight
        optimizer.safetensors   moments and update count
        ema.safetensors         averaged weights, where there are any
        state.json              step, validation loss, learning-rate state, and the checksum of each file above

A checkpoint is written under a temporary name and renamed when all of it is on the disk. All arrays are whole: what N
ranks saved, M ranks load.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen.config import Save
from moviegen.files import NoSpaceError, checksum
from moviegen.runs import write_json
from moviegen.weights import Arrays, CheckpointError, load_arrays, save_arrays


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds: the step, arrays by file (`weights`, `optimizer`, `ema`), and the rest."""

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
            NoSpaceError: it could not be written; nothing of it is left, and no other checkpoint was touched.
        """
        final = self.folder / f"step-{checkpoint.step:06d}"
        temporary = self.folder / f".{final.name}.tmp"
        try:
            self._write(checkpoint, temporary)
        except Exception as error:  # safetensors has an exception of its own for a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            raise NoSpaceError(
                f"cannot write the checkpoint of step {checkpoint.step} into {self.folder} ({error}): make room there "
                f"and start again, training goes on from the checkpoint before"
            ) from error
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self._superfluous():
            shutil.rmtree(old)
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is named in a warning and passed over."""
        for folder in reversed(self._folders()):
            try:
                return self._load(folder)
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(f"{folder} is damaged ({error}): going back to the checkpoint before", stacklevel=2)
        return None

    def _write(self, checkpoint: Checkpoint, temporary: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, arrays in checkpoint.files.items():
            save_arrays(temporary / f"{name}.safetensors", arrays)
        sums = {name: checksum(temporary / f"{name}.safetensors") for name in checkpoint.files}
        write_json(temporary / "state.json", {"step": checkpoint.step, "files": sums, **checkpoint.state})

    def _superfluous(self) -> list[Path]:
        folders = self._folders()
        if self.policy == "latest_k":
            return folders[: -self.keep]
        best = sorted(folders, key=self._validation_loss)[: self.keep]
        return [folder for folder in folders[:-1] if folder not in best]

    def _validation_loss(self, folder: Path) -> float:
        try:
            loss = json.loads((folder / "state.json").read_text()).get("validation_loss")
        except (OSError, ValueError):  # damaged: the first to go
            loss = None
        return float("inf") if loss is None else loss

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))

    def _load(self, folder: Path) -> Checkpoint:
        state = json.loads((folder / "state.json").read_text())
        for name, wanted in state["files"].items():
            if checksum(folder / f"{name}.safetensors") != wanted:
                raise CheckpointError(f"{name}.safetensors does not match its checksum")
        files = {name: load_arrays(folder / f"{name}.safetensors")[0] for name in state["files"]}
        return Checkpoint(state["step"], files, state)
