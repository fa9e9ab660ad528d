"""`python -m moviegen prove`: what a CPU can measure of what only large jobs need, held against what was foretold.

Each topic measures at growing sizes, in processes of its own. What a topic found is kept once it is done, so a run that
was stopped goes on with the next; a topic is measured again where its code, the parameters or the machine are others.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from moviegen.config import Params
from moviegen.launch.lock import FolderInUse, locked
from moviegen.launch.watch import JobError
from moviegen.proofs import records
from moviegen.proofs.proof import Proof


def prove(params: Params, topics: Iterable[str]) -> list[Proof]:
    """Measures the topics whose records are not current; returns what does not hold of those."""
    waiting = [topic for topic in topics if not records.is_current(params, topic)]
    failed = []
    with tqdm(total=len(waiting), desc="scale proof", unit="topic", disable=None, file=sys.stderr) as progress:
        for topic in waiting:
            progress.set_postfix_str(topic)
            failed += [proof for proof in _measured(params, topic) if not proof.holds]
            progress.update()
    return failed


def _measured(params: Params, topic: str) -> list[Proof]:
    """A topic's proofs, each told as soon as it is there."""
    folder: Path = records.folder() / topic
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started, found = time.perf_counter(), []
    for proof in importlib.import_module(f"moviegen.proofs.{topic}").proofs(params, folder):
        found.append(proof)
        tqdm.write(f"{topic}: {proof}", file=sys.stderr)
    records.write(params, topic, found, time.perf_counter() - started)
    shutil.rmtree(folder)
    return found


def main(params: Params, options: argparse.Namespace) -> None:
    """`prove`.

    Raises:
        JobError: another process is at it, or something does not hold.
    """
    del options
    records.folder().mkdir(parents=True, exist_ok=True)
    try:
        with locked(records.folder()):
            failed = prove(params, records.TOPICS)
    except FolderInUse as error:
        raise JobError(f"the scale proof is being measured already: {error}") from None
    print(f"scale proof: {records.folder()}; `make report` shows it on the page of parallelism", file=sys.stderr)
    if failed:
        raise JobError(f"{len(failed)} of what was measured do not hold: " + "; ".join(map(str, failed)))
