"""`outputs/scale-proof/<topic>.json`: what a topic's measurements found, on which machine, of which code."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moviegen.config import Params, outputs_root
from moviegen.proofs.proof import Proof
from moviegen.runs.files import read_json, write_json
from moviegen.runs.fingerprint import code_hash, digest
from moviegen.runs.machine import git_commit, machine

TOPICS = {
    "autoencoder": "Training the autoencoder",
    "tiles": "Encoding and decoding in tiles",
    "transformer": "Building and dividing the transformer",
    "checkpoints": "Checkpoints of many ranks",
    "start": "Starting a stage, and its batches",
    "cards": "Sampling on several cards",
    "killed": "Training that is killed again and again",
}  # in this order; a topic is a module of this room
STARTED = {"killed": ("moviegen.programs.train_dit",)}  # what a topic starts by name, which its imports do not show
KEPT = "kept.json"  # what a topic leaves in its folder besides: its record keeps it


def folder() -> Path:
    """Where records lie, whatever the scale of a report."""
    return outputs_root() / "scale-proof"


def path(topic: str) -> Path:
    """A topic's file, which need not be there."""
    return folder() / f"{topic}.json"


def write(params: Params, topic: str, proofs: list[Proof], seconds: float) -> None:
    """Leaves what was found, with all that it follows from, and what the topic left besides."""
    kept = folder() / topic / KEPT
    content = _origin(params, topic) | {
        "topic": topic,
        "proofs": [proof.content() for proof in proofs],
        "kept": read_json(kept, "measure it again") if kept.is_file() else {},
        "seconds": round(seconds, 1),
        "commit": git_commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path(topic), content)


def read(topic: str) -> dict[str, Any] | None:
    """A topic's record, or None where it was not measured."""
    return read_json(path(topic), "remove it and measure it again") if path(topic).is_file() else None


def is_current(params: Params, topic: str) -> bool:
    """Whether measuring again, here, would only repeat what was found."""
    record = read(topic)
    return record is not None and _origin(params, topic).items() <= record.items()


def code(topic: str) -> str:
    """Hash of the code that measures a topic, and of what it measures."""
    modules = (f"moviegen.proofs.{topic}", *STARTED.get(topic, ()))
    return digest([code_hash(module, without=()) for module in modules])


def _origin(params: Params, topic: str) -> dict[str, Any]:
    return {"parameters": digest(params.model_dump(mode="json")), "code": code(topic), "machine": machine()}
