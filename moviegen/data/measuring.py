"""What each file of a data set holds: decoded once, in worker processes, and remembered.

The memory is `measured.jsonl` in the outputs folder: a line a file, by its content and by the code that measured it.
So nothing is measured twice when a parameter changes, when a file is moved, renamed, copied or listed twice, or when an
index is stopped and started again. It only saves time: without it files are measured again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moviegen.config import Params, outputs_root
from moviegen.data.clips import Clip
from moviegen.data.videos import BrokenVideo, VideoInfo, probe
from moviegen.launch.pool import Failure, map_unordered
from moviegen.runs.fingerprint import code_hash, digest, packages
from moviegen.runs.folders import printable
from moviegen.runs.hashes import content_hashes
from moviegen.runs.machine import cores
from moviegen.runs.metrics import MetricsWriter, read_metrics
from moviegen.runs.patience import Patience

MEASURES = "moviegen.data.videos"
UNREADABLE, UNDECODABLE = "cannot be read", "cannot be decoded"
FileState = tuple[int, int] | None  # bytes, and time of the last change in ns; None: there is no such file


@dataclass(frozen=True)
class Unusable:
    """Why a file is set aside: a kind, by which files are counted, and what is wrong with this one."""

    kind: str
    reason: str


Verdict = VideoInfo | Unusable


def measure(
    params: Params, lists: Collection[Sequence[Clip]], on_file: Callable[[int, int], object] = lambda done, total: None
) -> dict[Path, Verdict]:
    """What every file of some lists of clips holds, or why it is set aside; no file can stop the others' measuring.

    A file that hangs or kills the decoder is tried again by the next index: that may have been the machine's fault.

    Args:
        on_file: called after each measured file with how many are done and how many there are.

    Raises:
        ConfigError: it would take longer than `data.patience_hours`.
    """
    paths = list(dict.fromkeys(clip.path for clips in lists for clip in clips))
    verdicts: dict[Path, Verdict] = {path: reason for path in paths if (reason := _unreadable(path))}
    states = {path: _state(path) for path in paths if path not in verdicts}
    hashes = content_hashes(states)
    verdicts |= {
        path: Unusable(UNREADABLE, str(error.strerror)) for path, error in hashes.items() if isinstance(error, OSError)
    }
    contents = {path: f"{hashes[path]}{path.suffix.lower()}" for path in states if path not in verdicts}
    memory = _Memory()
    unknown: dict[str, Path] = {}  # each content once
    for path, content in contents.items():
        if content not in memory.known:
            unknown.setdefault(content, path)
    patience = Patience(params, "measuring the clips", ["file"] * len(unknown), max(map(len, lists), default=0))
    measured: dict[str, Verdict] = {}
    workers = max(1, round(cores()))  # more would take a container's share of time from each other, up to the limit
    with closing(map_unordered(_measure, unknown.values(), params.data.time_limit, workers)) as answers:
        for done, (path, answer) in enumerate(tqdm(answers, "measuring", len(unknown), unit="file", disable=None), 1):
            measured[contents[path]] = _verdict(answer, states[path], params.data.time_limit)
            if not isinstance(answer, Failure) and answer[1] == states[path]:
                memory.add(contents[path], measured[contents[path]])
            on_file(done, len(unknown))
            patience.done("file")
    by_content = memory.known | measured
    return verdicts | {path: by_content[content] for path, content in contents.items()}


def _measure(path: Path) -> tuple[Verdict, FileState]:
    """In a worker: what a file holds, and its state after it was read."""
    try:
        verdict: Verdict = probe(path)
    except BrokenVideo as error:
        verdict = Unusable(UNDECODABLE, error.reason)
    return verdict, _state(path)


def _verdict(answer: tuple[Verdict, FileState] | Failure, before: FileState, limit: float) -> Verdict:
    """What a worker measured, unless it failed or the file changed meanwhile."""
    if isinstance(answer, Failure):
        reason = f"decoding takes longer than data.time_limit, {limit:g} s" if answer.timed_out else answer.reason
        return Unusable("stops the decoder", reason)
    verdict, after = answer
    return verdict if after == before else Unusable("changed meanwhile", "it changed while it was read")


def _unreadable(path: Path) -> Unusable | None:
    """Why a file cannot be used, as far as that shows without opening it."""
    if printable(path) != str(path):  # what lists clips and latents is UTF-8
        return Unusable("name", "its name is not UTF-8: rename it")
    try:
        if path.is_file():
            return None
        if path.is_symlink() and not path.exists():
            return Unusable("not there", f"a link to {os.readlink(path)}, which is not there")
        return Unusable("not there", "not a file" if path.exists() else "no such file")
    except OSError as error:
        return Unusable(UNREADABLE, str(error.strerror))


def _state(path: Path) -> FileState:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


class _Memory:
    """What this code has measured before, by content."""

    def __init__(self) -> None:
        path = outputs_root() / "measured.jsonl"
        self.code = digest([code_hash(MEASURES), packages(MEASURES)])
        lines = [line for line in read_metrics(path) if line.get("code") == self.code]
        self.known = {line["content"]: _parsed(line) for line in lines}
        self._writer = MetricsWriter(path)

    def add(self, content: str, verdict: Verdict) -> None:
        values: dict[str, Any] = {"reason": verdict.reason} if isinstance(verdict, Unusable) else asdict(verdict)
        self._writer.write(code=self.code, content=content, **values)
        self.known[content] = verdict


def _parsed(line: dict[str, Any]) -> Verdict:
    """A line of the memory."""
    if "reason" in line:
        return Unusable(UNDECODABLE, line["reason"])
    return VideoInfo(**{name: value for name, value in line.items() if name not in ("code", "content")})
