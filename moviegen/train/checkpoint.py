"""Checkpoints: whole or not there at all, checked when read.

    checkpoints/step-000100/
        weights.safetensors     structural name -> weight
        optimizer.safetensors   moments and update count
        state.json              step, learning-rate state, and the checksum of each file above

A checkpoint is written under a temporary name and renamed when all of it is on the disk.
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

from moviegen.files import checksum
from moviegen.runs import write_json
from moviegen.weights import Arrays, CheckpointError, load_arrays, save_arrays


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds."""

    step: int
    weights: Arrays
    optimizer: Arrays
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes one and drops those too old to keep."""
        final = self.folder / f"step-{checkpoint.step:06d}"
        temporary = self.folder / f".{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {"weights.safetensors": checkpoint.weights, "optimizer.safetensors": checkpoint.optimizer}
        for name, arrays in files.items():
            save_arrays(temporary / name, arrays)
        sums = {name: checksum(temporary / name) for name in files}
        write_json(temporary / "state.json", {"step": checkpoint.step, "files": sums, **checkpoint.state})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self._folders()[: -self.keep]:
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

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))

    def _load(self, folder: Path) -> Checkpoint:
        state = json.loads((folder / "state.json").read_text())
        for name, wanted in state["files"].items():
            if checksum(folder / name) != wanted:
                raise CheckpointError(f"{name} does not match its checksum")
        weights, optimizer = (load_arrays(folder / f"{part}.safetensors")[0] for part in ("weights", "optimizer"))
        return Checkpoint(state["step"], weights, optimizer, state)
