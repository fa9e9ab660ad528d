"""`python -m moviegen text encode`: the embeddings of every caption, from three encoders (paper 3.1.4).

A run encodes the captions of both mixkit splits. `--captions FILE` encodes a file's instead, outside of any run: a CSV
with a column `caption`, or a text file with one caption a line. They go into `--output DIR`, or into a folder of their
own below `outputs/<scale>/embeddings`, whose name is printed; `dataset.text_emb_folder` may name it then. The empty
caption, which guidance needs, is always among them.

`encoders.json` says from the beginning, and `summary.json` when all is there, which encoders made the embeddings, by a
hash of their files: embeddings of others are refused. A run's manifest says it too. Under `msrun` each rank encodes its
share.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import device, programs, runs
from moviegen.config import ConfigError, Params, from_root, outputs_folder
from moviegen.data.prepare import load_split, write_rows
from moviegen.device.collectives import World, barrier, join_world
from moviegen.text.embeddings import caption_file, read_embeddings, save_embedding
from moviegen.text.pretrained import Encoder, encoders

Origin = dict[str, Any]
COMMAND = "`python -m moviegen text encode --captions FILE`"


def origin(encoder: Encoder) -> Origin:
    """What an embedding follows from besides its caption."""
    return {"kind": encoder.kind, "sha256": encoder.sha256(), "max_tokens": encoder.max_tokens}


def origins(chosen: Iterable[Encoder]) -> dict[str, Origin]:
    """`origin` of each, by its name."""
    return {encoder.name: origin(encoder) for encoder in chosen}


def check_origin(folder: Path, params: Params) -> None:
    """Refuses embeddings that other encoders made.

    Args:
        folder: what `text encode` wrote.

    Raises:
        ConfigError: its encoders are not those of the parameters, or it is not finished.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise ConfigError(f"{folder} holds no finished embeddings (no summary.json): run {COMMAND}")
    made_by = json.loads(summary.read_text()).get("origin", {})
    for encoder in encoders(params):
        found, wanted = made_by.get(encoder.name, {}), origin(encoder)
        if found != wanted:
            raise ConfigError(
                f"the {encoder.name} embeddings in {folder} were made by {_shown(found)}, and the parameters under "
                f"text.{encoder.name} name {_shown(wanted)}: encode the captions again with {COMMAND}, or name the "
                f"encoder of then"
            )


def stage_folder(run: runs.Run) -> Path:
    """Where a training stage's embeddings lie: the text run's folder, or the one that its recipe names.

    Raises:
        ConfigError: other encoders made them; see `check_origin`.
    """
    named = run.params.recipes[run.program.stage].dataset.text_emb_folder
    folder = from_root(named) if named else run.upstream("text").folder
    check_origin(folder, run.params)
    return folder


def stage_embeddings(run: runs.Run, captions: list[str]) -> tuple[np.ndarray, ...]:
    """Captions' embeddings for a training stage; see `stage_folder` and `read_embeddings`."""
    return read_embeddings(stage_folder(run), captions, run.params.text)


def claim(folder: Path, made_by: dict[str, Origin]) -> None:
    """Notes whose embeddings a folder will hold.

    Raises:
        ConfigError: it already holds others'.
    """
    path = folder / "encoders.json"
    if path.is_file() and json.loads(path.read_text()) != made_by:
        raise ConfigError(f"{folder} holds embeddings of other encoders ({path.name} says whose): name another folder")
    runs.write_json(path, made_by)


def read_captions(path: Path) -> list[str]:
    """The captions of a CSV file (its column `caption`) or of a text file (its lines).

    Raises:
        ConfigError: there is no such file, it is of another kind, or it holds no captions.
    """
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                if "caption" not in (rows.fieldnames or ()):
                    raise ConfigError(f"{path} has no column `caption`, only: {', '.join(rows.fieldnames or ())}")
                captions = [row["caption"] or "" for row in rows]
        elif path.suffix == ".txt":
            with path.open(encoding="utf-8-sig") as file:
                captions = [line.removesuffix("\n") for line in file]
        else:
            raise ConfigError(f"{path}: captions are read from .csv and .txt files")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not any(captions):
        raise ConfigError(f"{path} holds no captions")
    return captions


def missing(folder: Path, captions: list[str], chosen: list[Encoder]) -> dict[str, list[str]]:
    """The captions that a folder has no embedding of, by encoder."""
    return {
        encoder.name: [caption for caption in captions if not caption_file(folder, encoder.name, caption).exists()]
        for encoder in chosen
    }


def encode_share(folder: Path, left: Mapping[str, list[str]], chosen: list[Encoder], world: World) -> None:
    """Encodes this rank's share of what is `missing`, one encoder after the other."""
    for encoder in chosen:
        own = left[encoder.name][world.rank :: world.size]
        if not own:
            continue  # nothing to load it for
        found = zip(own, encoder.encode(own), strict=True)
        hidden = None if world.is_main else True
        for caption, embedding in tqdm(found, f"encoding captions: {encoder.name}", len(own), disable=hidden):
            save_embedding(caption_file(folder, encoder.name, caption), embedding)


def encode_captions(folder: Path, captions: Iterable[str], params: Params, world: World) -> None:
    """Encodes captions and the empty one into a folder; one that was cut goes on where it was."""
    ordered = ["", *sorted(set(captions) - {""})]
    chosen = encoders(params)
    if world.is_main:
        claim(folder, origins(chosen))
    barrier(world)
    left = missing(folder, ordered, chosen)
    barrier(world)  # nobody writes before all have listed the same
    encode_share(folder, left, chosen, world)
    barrier(world)
    if world.is_main:
        rows = [(caption, caption_file(folder, "ul2", caption).name) for caption in ordered]
        write_rows(folder / "index.csv", ("caption", "file"), rows)
        shown = [str(encoder) for encoder in chosen]
        summary = {"captions": len(ordered), "encoders": shown, "origin": origins(chosen)}
        runs.write_json(folder / "summary.json", summary)


def own_folder(params: Params, captions: Iterable[str]) -> Path:
    """Where captions of a file go by default: a folder named after them and their encoders."""
    marks = [programs.file_mark(encoder.folder) for _, encoder in params.text]
    made_from = [sorted(set(captions)), params.seed, params.text.model_dump(mode="json"), marks]
    return outputs_folder(params) / "embeddings" / programs.digest(made_from)


def encode_file(params: Params, options: argparse.Namespace) -> None:
    """`text encode --captions FILE`.

    Raises:
        ConfigError: see `read_captions`, `claim` and `Pretrained`.
    """
    captions = read_captions(Path(options.captions))
    folder = Path(options.output) if options.output else own_folder(params, captions)
    device.start(params.seed, params.launch)
    world = join_world()
    encode_captions(folder, captions, params, world)
    if world.is_main:
        print(folder)
    barrier(world)


def encode_run(run: runs.Run, world: World) -> None:
    """Encodes every caption of both mixkit splits."""
    data = run.upstream("data")
    captions = [clip.caption for split in ("mixkit_train", "mixkit_val") for clip in load_split(data, split)]
    encode_captions(run.folder, captions, run.params, world)


def main(params: Params, options: argparse.Namespace) -> None:
    """`text encode`."""
    if options.output and not options.captions:
        raise ConfigError(f"--output {options.output} goes with --captions FILE; the data's captions go into a run")
    if options.captions:
        encode_file(params, options)
        return
    device.start(params.seed, params.launch)
    world, run = join_world(), runs.find(params, "text")
    with runs.record(run, encoders=origins(encoders(params))) if world.is_main else nullcontext():
        encode_run(run, world)
        barrier(world)
    barrier(world)  # the run is complete before a rank leaves: the notebook on its host looks for it


def _shown(made_by: Origin) -> str:
    if not made_by:
        return "an unknown encoder"
    return f"a {made_by['kind']} encoder of {made_by['max_tokens']} tokens with checksum {made_by['sha256'][:12]}"
