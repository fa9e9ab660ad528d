"""Clips that turn out to be damaged while a run goes on: set aside, counted, replaced."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from moviegen.data.clips import Clip
from moviegen.data.tables import read_rows
from moviegen.data.videos import BrokenVideo
from moviegen.runs.files import write_csv
from moviegen.runs.folders import printable

Read = TypeVar("Read")


class Quarantine:
    """The damaged clips of one run, listed in a CSV file (path, reason) as soon as they are met.

    Args:
        path: the list; what it already holds stays set aside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        if path.exists():
            self.reasons = {row["path"]: row["reason"] for row in read_rows(path, {"path", "reason"})}

    def __len__(self) -> int:
        return len(self.reasons)

    def __contains__(self, clip: Clip) -> bool:
        return printable(clip.path) in self.reasons

    def read(self, clips: Sequence[Clip], index: int, view: Callable[[Clip], Read]) -> tuple[Clip, Read]:
        """The view of a clip, or of the next sound one after it: which one follows from the files alone.

        Raises:
            BrokenVideo: no clip is left.
        """
        for position in range(index, index + len(clips)):
            clip = clips[position % len(clips)]
            if clip in self:
                continue
            try:
                return clip, view(clip)
            except BrokenVideo as error:
                self.add(clip, error.reason)
        raise BrokenVideo(clips[index].path, f"and so is every other of {len(clips)} clips; see {self.path}")

    def add(self, clip: Clip, reason: str) -> None:
        """Sets a clip aside, with a warning."""
        warnings.warn(f"{printable(clip.path)} is set aside ({reason}); listed in {self.path}", stacklevel=2)
        self.reasons[printable(clip.path)] = reason
        write_csv(self.path, ("path", "reason"), self.reasons.items())
