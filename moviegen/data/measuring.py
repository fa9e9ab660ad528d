"""What each file of a data set holds: decoded once, in worker processes, and remembered.

The memory is `measured.jsonl` in the outputs folder: a line a file, by its content and by the code that measured it.
So a changed parameter measures nothing again, nor does a file that was moved, renamed, copied or listed twice, nor an
index that was stopped. It is only there to save time.
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
from moviegen.runs.metrics import MetricsWriter, read_metrics
from moviegen.runs.patience import Patience

MEASURES = "moviegen.data.videos"
UNREADABLE, UNDECODABLE = "cannot be read", "cannot be decoded"
State = tuple[int, int] | None  # of a file: bytes, and time of the last change in ns; None: it is not there


@dataclass(frozen=True)
class Unusable:
    """Why a file is set aside: a kind, to count by, and what is the matter with this one."""

    kind: str
    reason: str


Verdict = VideoInfo | Unusable


def measure(
    params: Params, lists: Collection[Sequence[Clip]], tell: Callable[[int, int], None] = lambda done, of: None
) -> dict[Path, Verdict]:
    """What every file of some lists of clips holds, or why it is set aside: none ends the measuring of the others.

    A file that hangs or kills the decoder is tried again by the next index: that may have been the machine's fault.

    Args:
        tell: called with how many files of how many have been measured.

    Raises:
        ConfigError: it would take longer than `data.patience_hours`.
    """
    paths = list(dict.fromkeys(clip.path for clips in lists for clip in clips))
    verdicts: dict[Path, Verdict] = {path: reason for path in paths if (reason := _unreadable(path))}
    states = {path: _state(path) for path in paths if path not in verdicts}
    hashes = content_hashes(states)
    verdicts |= {p: Unusable(UNREADABLE, str(e.strerror)) for p, e in hashes.items() if isinstance(e, OSError)}
    contents = {path: f"{hashes[path]}{path.suffix.lower()}" for path in states if path not in verdicts}
    memory = _Memory()
    unknown: dict[str, Path] = {}  # each content once
    for path, content in contents.items():
        if content not in memory.known:
            unknown.setdefault(content, path)
    patience = Patience(params, "measuring the clips", ["file"] * len(unknown), max(map(len, lists), default=0))
    found: dict[str, Verdict] = {}
    with closing(map_unordered(_measure, unknown.values(), params.data.time_limit)) as answers:
        for done, (path, answer) in enumerate(tqdm(answers, "measuring", len(unknown), unit="file", disable=None), 1):
            found[contents[path]] = _verdict(answer, states[path], params.data.time_limit)
            if not isinstance(answer, Failure) and answer[1] == states[path]:
                memory.add(contents[path], found[contents[path]])
            tell(done, len(unknown))
            patience.done("file")
    return verdicts | {path: (memory.known | found)[content] for path, content in contents.items()}


def _measure(path: Path) -> tuple[Verdict, State]:
    """In a worker: what a file holds, and its state after it was read."""
    try:
        verdict: Verdict = probe(path)
    except BrokenVideo as error:
        verdict = Unusable(UNDECODABLE, error.reason.replace(f": '{path}'", ""))  # the reason is its content's
    return verdict, _state(path)


def _verdict(answer: tuple[Verdict, State] | Failure, before: State, limit: float) -> Verdict:
    """What a worker found, unless it did not come back or the file was another one by then."""
    if isinstance(answer, Failure):
        reason = f"decoding takes longer than data.time_limit, {limit:g} s" if answer.timed_out else answer.reason
        return Unusable("stops the decoder", reason)
    verdict, after = answer
    return verdict if after == before else Unusable("changed meanwhile", "it changed while it was read")


def _unreadable(path: Path) -> Unusable | None:
    """What is the matter with a file that need not be opened for it."""
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


def _state(path: Path) -> State:
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
        found: dict[str, Any] = {"reason": verdict.reason} if isinstance(verdict, Unusable) else asdict(verdict)
        self._writer.write(code=self.code, content=content, **found)
        self.known[content] = verdict


def _parsed(line: dict[str, Any]) -> Verdict:
    """A line of the memory."""
    if "reason" in line:
        return Unusable(UNDECODABLE, line["reason"])
    return VideoInfo(**{name: value for name, value in line.items() if name not in ("code", "content")})
