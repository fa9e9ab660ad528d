"""Checkpoints: committed or not there at all, checked when read.

    checkpoints/step-000100/
        rank-0000.safetensors   flat intervals of weights/NAME, optimizer/NAME and ema/NAME, and where they begin
        rank-0000.sha256        of that file, taken while it was written: `sha256sum -c` checks it
        ...                     the same of each other rank
        state.json              step, validation loss, state of the learning rate and the loss scale, what ran, and the
                                checksum of each rank's file and of this one

Each rank writes what it holds; what all hold they share out. `state.json` comes last, when every rank's file is on the
disk, and is what makes the folder a checkpoint. It is renamed into its place; where a file system's renaming is not one
step, its own checksum shows half of one. What is dropped loses it first. So a kill at any moment leaves the checkpoints
there were, or one more. Reading is by intervals: what N ranks saved, M ranks load, each what it needs.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moviegen.config import Save
from moviegen.device.world import World
from moviegen.runs.arrays import (
    CheckpointError,
    StoredArray,
    StoredTensor,
    stored_metadata,
    stored_tensors,
    write_tensors,
)
from moviegen.runs.files import FULL, NoSpaceError, checksum, flush_folder, read_json, write_json, write_text
from moviegen.runs.fingerprint import digest

NAME = re.compile(r"step-(\d{6,})")
COMMIT = "state.json"
POLL_SECONDS = 0.2
UNREADABLE = (OSError, ValueError, KeyError)  # what damaged files raise when they are checked


@dataclass(frozen=True)
class Part:
    """What one rank writes of an array: `values` are those from `start` on of the flattened array.

    Args:
        name: the kind of array and its own name: `weights/blocks.0.attention.weight`.
        shape: of the whole array.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    values: np.ndarray


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds: the step, arrays by kind (`weights`, `optimizer`, `ema`), and the rest.

    Arrays are read when they are asked for, whole or an interval: 30B's state takes 352 GB.
    """

    step: int
    files: Mapping[str, Mapping[str, StoredArray]]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run: the newest `keep` stay, or the newest and those of the lowest validation loss.

    Attributes:
        silence: seconds that rank 0 waits for files of other ranks that do not grow.
    """

    def __init__(self, folder: Path, save: Save, world: World | None = None) -> None:
        self.folder, self.keep, self.policy, self.world = folder, save.keep, save.ckpt_save_policy, world or World()
        self.silence = 600.0

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    def is_committed(self, step: int) -> bool:
        """Whether there is one of that step."""
        return (self.path(step) / COMMIT).is_file()

    def sweep(self) -> None:
        """Deletes what killed saves left, on rank 0 before any rank saves."""
        for folder in self._folders():
            if not (folder / COMMIT).is_file():
                _remove(folder)

    def make_way(self, step: int) -> None:
        """Deletes a damaged checkpoint of a step that is saved again, on rank 0 before any rank writes its part."""
        if self.path(step).exists():
            _remove(self.path(step))

    def save(
        self, step: int, parts: Iterable[Part], state: Mapping[str, Any], alive: Callable[[], None] = lambda: None
    ) -> Path:
        """Writes this rank's parts; rank 0 waits for the others', commits, and drops what need not be kept.

        Args:
            alive: called while bytes are written.

        Raises:
            NoSpaceError: there is no room; nothing is committed, and no other checkpoint was touched.
            CheckpointError: another rank's file did not come.
        """
        folder = self.path(step)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(folder / f"{_rank_name(self.world.rank)}.safetensors", parts, alive)
            if self.world.is_main:
                self._commit(step, state, alive)
        except OSError as error:
            if self.world.is_main:
                _remove(folder)
            else:
                (folder / f"{_rank_name(self.world.rank)}.safetensors").unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            raise NoSpaceError(
                f"cannot write the checkpoint of step {step} into {self.folder} ({error}): make room there and start "
                f"again, training goes on from the checkpoint before"
            ) from error
        if self.world.is_main:
            for superfluous in self._superfluous(step):
                _remove(superfluous)
        return folder

    def steps(self) -> list[int]:
        """Of all that were committed, the newest first."""
        return [_step(folder) for folder in reversed(self._folders()) if (folder / COMMIT).is_file()]

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is named in a warning and passed over."""
        for step in self.steps():
            try:
                self.check(step, World())
                return self.at(step)
            except UNREADABLE as error:
                self.warn(step, str(error))
        return None

    def warn(self, step: int, reason: str) -> None:
        """Names a damaged one."""
        warnings.warn(f"{self.path(step)} is damaged ({reason}): going back to the checkpoint before", stacklevel=3)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, whose bytes were checked or just written.

        Raises:
            CheckpointError: it cannot be read.
        """
        folder = self.path(step)
        try:
            state = _committed(folder)
            return Checkpoint(state["step"], _arrays([folder / name for name in state["files"]]), state)
        except (OSError, KeyError) as error:
            raise CheckpointError(f"cannot read {folder} ({error})") from None

    def check(self, step: int, world: World) -> None:
        """Whether the bytes of a rank's share of the files are what they were; all ranks' shares are all files.

        Raises:
            OSError, ValueError, KeyError: some are not, or cannot be read.
        """
        folder = self.path(step)
        for number, (name, recorded) in enumerate(_committed(folder)["files"].items()):
            if number % world.size == world.rank and checksum(folder / name) != recorded:
                raise CheckpointError(f"{name} does not match its checksum")

    def _write(self, path: Path, parts: Iterable[Part], alive: Callable[[], None]) -> None:
        by_name = {part.name: part for part in parts}
        index = {name: [part.start, *part.shape] for name, part in by_name.items()}
        arrays = {name: part.values for name, part in by_name.items()}
        content = write_tensors(path, arrays, {"parts": json.dumps(index)}, lambda written: alive())
        write_text(path.with_suffix(".sha256"), f"{content}  {path.name}\n")

    def _commit(self, step: int, state: Mapping[str, Any], alive: Callable[[], None]) -> None:
        folder = self.path(step)
        content = {"step": step, "files": self._sums(folder, alive), **state}
        flush_folder(folder)
        write_json(folder / COMMIT, content | {"checksum": digest(content)})
        flush_folder(self.folder)

    def _sums(self, folder: Path, alive: Callable[[], None]) -> dict[str, str]:
        """The checksum of each rank's file, when all are there."""
        found, size, since = dict[str, str](), -1, time.monotonic()
        names = [f"{_rank_name(rank)}.safetensors" for rank in range(self.world.size)]
        while True:
            found |= {name: content for name in names if name not in found and (content := _sum(folder / name))}
            missing = [name for name in names if name not in found]
            if not missing:
                return {name: found[name] for name in names}
            grown, size = size, sum(path.stat().st_size for path in folder.glob("rank-*") if path.exists())
            if grown != size:
                since = time.monotonic()
                alive()
            elif time.monotonic() - since > self.silence:
                raise CheckpointError(
                    f"{folder}: {', '.join(missing)} did not grow for {self.silence:g} s: all hosts must share the "
                    f"folder, and all ranks must be able to write there"
                )
            time.sleep(POLL_SECONDS)

    def _superfluous(self, step: int) -> list[Path]:
        """What need not be kept now that `step` is saved: none that another rank may already write to."""
        folders = [folder for folder in self._folders() if (folder / COMMIT).is_file()]
        left = [folder for folder in self._folders() if folder not in folders and _step(folder) < step]
        past = [folder for folder in folders if _step(folder) > step]  # damaged: training went back past them
        valid = folders[: len(folders) - len(past)]
        if self.policy == "latest_k":
            return left + past + valid[: -self.keep]
        best = sorted(valid, key=_validation_loss)[: self.keep]
        return left + past + [folder for folder in valid[:-1] if folder not in best]

    def _folders(self) -> list[Path]:
        return sorted((folder for folder in self.folder.glob("step-*") if NAME.fullmatch(folder.name)), key=_step)


def _rank_name(rank: int) -> str:
    return f"rank-{rank:04d}"


def _sum(path: Path) -> str | None:
    """What a rank says of its file, once it has said all of it."""
    try:
        said = path.with_suffix(".sha256").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    match = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(path.name)}\n", said)
    return match[1] if match else None


def _committed(folder: Path) -> dict[str, Any]:
    state = read_json(folder / COMMIT, "it is of no use")
    if state.pop("checksum") != digest(state):
        raise CheckpointError(f"{COMMIT} does not match its checksum")
    return state


def _arrays(files: Iterable[Path]) -> dict[str, dict[str, StoredArray]]:
    """The arrays whose parts lie in files, by kind and name; none is read.

    Raises:
        CheckpointError: a file is damaged, or parts are missing.
    """
    shapes, pieces = dict[str, tuple[int, ...]](), dict[str, list[tuple[int, StoredTensor]]]()
    for file in files:
        index = json.loads(stored_metadata(file)["parts"])
        for name, stored in stored_tensors(file).items():
            start, *shape = index[name]
            shapes[name] = tuple(shape)
            pieces.setdefault(name, []).append((start, stored))
    arrays = dict[str, dict[str, StoredArray]]()
    for name, found in pieces.items():
        kind, _, own = name.partition("/")
        found.sort(key=lambda piece: piece[0])
        end = 0
        for start, stored in found:
            if start != end:
                raise CheckpointError(f"{name} has a gap at {end}")
            end += stored.shape[0]
        if end != math.prod(shapes[name]):
            raise CheckpointError(f"{name} ends at {end}")
        arrays.setdefault(kind, {})[own] = StoredArray(shapes[name], found[0][1].numpy_dtype, tuple(found))
    return arrays


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _validation_loss(folder: Path) -> float:
    try:
        loss = json.loads((folder / COMMIT).read_text(encoding="utf-8")).get("validation_loss")
    except (OSError, ValueError):  # damaged: the first to go
        loss = None
    return float("inf") if loss is None else loss


def _remove(folder: Path) -> None:
    """Deletes a checkpoint, which is none from the first moment on.

    What cannot be deleted is left for the next time: NFS keeps a file that a process still reads as `.nfs...`, and the
    folder with it.
    """
    with suppress(FileNotFoundError):
        (folder / COMMIT).unlink()
    shutil.rmtree(folder, ignore_errors=True)
