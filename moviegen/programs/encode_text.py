"""`python -m moviegen text encode`: the embeddings of every caption, from three encoders (paper 3.1.4).

A run encodes the captions of both mixkit splits. `--captions FILE` encodes a file's instead, outside of any run: a CSV
with a column `caption`, or a text file with one caption a line. They go into `--output DIR`, or into a folder of their
own below `outputs/<scale>/embeddings`, whose name is printed; `dataset.text_emb_folder` may name it then. The empty
caption, which guidance needs, is always among them.

`encoders.json` says from the beginning, and `summary.json` when all is there, which encoders made the embeddings. A
run's manifest says it too, and its `metrics.jsonl` counts captions. Under `msrun` each rank encodes its share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from moviegen import runs
from moviegen.config import ConfigError, Params, local_paths, outputs_folder, result_parameters
from moviegen.data import index
from moviegen.data.embeddings import MEND, Origins, caption_file, save_embedding
from moviegen.data.splits import load_split
from moviegen.data.tables import numbered_rows
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.runs.files import check_writable, read_json, write_json
from moviegen.runs.fingerprint import content_hash, digest
from moviegen.runs.patience import Patience
from moviegen.runs.ranks import joined, recorded
from moviegen.text.encoders import Encoder, encoders, origins


def claim(folder: Path, origins: Origins) -> None:
    """Notes whose embeddings a folder will hold.

    Raises:
        ConfigError: it already holds others'.
    """
    path = folder / "encoders.json"
    if path.is_file() and read_json(path, "remove it and what lies beside it, or name another folder") != origins:
        raise ConfigError(f"{folder} holds embeddings of other encoders ({path.name} says whose): name another folder")
    write_json(path, origins)


def read_captions(path: Path) -> list[str]:
    """The captions of a CSV file (its column `caption`) or of a text file (its lines).

    Raises:
        ConfigError: there is no such file, it is of another kind, holds no captions, or is a table that cannot be read
            (see `numbered_rows`).
    """
    try:
        if path.suffix == ".csv":
            captions = [row["caption"] for row in numbered_rows(path, {"caption"}, skipinitialspace=True).values()]
        elif path.suffix == ".txt":
            with path.open(encoding="utf-8-sig") as file:
                captions = [line.removesuffix("\n") for line in file]
        else:
            raise ConfigError(f"{path}: captions are read from .csv and .txt files")
    except (OSError, ValueError) as error:
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


class Account:
    """What a run says of the captions that its rank encodes, and how long it waits for them.

    Each encoder's are foreseen by themselves: they do not take turns, as two may not fit into the memory.

    Args:
        todo: what is `missing`.
        captions: how many there are, of all ranks.
    """

    def __init__(self, run: runs.Run, world: World, todo: Mapping[str, list[str]], captions: int) -> None:
        left = {name: len(those[world.rank :: world.size]) for name, those in todo.items()}
        self.patience = {
            name: Patience(
                run.params,
                f"encoding captions with {name}",
                [name] * (captions // world.size),
                captions,
                [name] * (captions // world.size - count),
            )
            for name, count in left.items()
        }
        self.step, self.steps = 0, sum(left.values())
        self.metrics = runs.MetricsWriter(run.metrics_path) if world.is_main else None
        if self.metrics:
            self.metrics.drop_after(0)

    def done(self, name: str) -> None:
        """One more caption went through the encoder of this name.

        Raises:
            ConfigError: the rest takes longer than `data.patience_hours`.
        """
        self.step += 1
        if self.metrics:
            self.metrics.write(kind="caption", step=self.step, steps=self.steps, encoder=name)
        self.patience[name].done(name)


def uncounted(name: str) -> None:
    """Outside of runs nobody counts the captions that an encoder is done with."""


def encode_share(
    folder: Path,
    todo: Mapping[str, list[str]],
    chosen: list[Encoder],
    world: World,
    done: Callable[[str], None] = uncounted,
) -> None:
    """Encodes this rank's share of what is `missing`, one encoder after the other; tells `done` of each caption."""
    for encoder in chosen:
        share = todo[encoder.name][world.rank :: world.size]
        if not share:
            continue  # nothing to load it for
        encoded = zip(share, encoder.encode(share), strict=True)
        hidden = None if world.is_main else True
        for caption, embedding in tqdm(encoded, f"encoding captions: {encoder.name}", len(share), disable=hidden):
            path = caption_file(folder, encoder.name, caption)
            index.note(folder, world.rank, path, save_embedding(path, **vars(embedding)))
            done(encoder.name)


def encode_captions(
    folder: Path, captions: Iterable[str], params: Params, world: World, run: runs.Run | None = None
) -> None:
    """Encodes captions and the empty one into a folder, a run's or another; one that was cut goes on where it was."""
    ordered = ["", *sorted(set(captions) - {""})]
    chosen = encoders(params)
    if world.is_main:
        claim(folder, origins(chosen))
    barrier(world)
    todo = missing(folder, ordered, chosen)
    barrier(world)  # nobody writes before all have listed the same
    done = Account(run, world, todo, len(ordered)).done if run else uncounted
    encode_share(folder, todo, chosen, world, done)
    barrier(world)
    if world.is_main:
        pairs = [(encoder.name, caption) for encoder in chosen for caption in ordered]
        files = {caption_file(folder, name, caption): caption for name, caption in pairs}
        index.join(folder, files, "text_emb", MEND)
        shown = [str(encoder) for encoder in chosen]
        summary = {"captions": len(ordered), "encoders": shown, "origin": origins(chosen)}
        write_json(folder / "summary.json", summary)


def captions_folder(params: Params, captions: Iterable[str]) -> Path:
    """Where captions of a file go by default: a folder named after them and their encoders."""
    contents = {name: content_hash(name, path) for name, path in local_paths(params.text).items()}
    mark = digest([sorted(set(captions)), params.seed, result_parameters(params.text), contents])
    return outputs_folder(params) / "embeddings" / mark


def encode_file(params: Params, options: argparse.Namespace) -> None:
    """`text encode --captions FILE`.

    Raises:
        ConfigError: see `read_captions`, `check_writable`, `claim` and `Pretrained`.
    """
    captions = read_captions(Path(options.captions))
    folder = Path(options.output) if options.output else captions_folder(params, captions)
    check_writable(folder, "--output")
    with joined(params) as world:
        encode_captions(folder, captions, params, world)
        if world.is_main:
            print(folder)


def encode_run(run: runs.Run, world: World) -> None:
    """Encodes every caption of both mixkit splits, and every paraphrase of one."""
    data = run.upstream("data")
    clips = [clip for split in ("mixkit_train", "mixkit_val") for clip in load_split(data, split)]
    paraphrases = [clip.paraphrase for clip in clips if clip.paraphrase]
    encode_captions(run.folder, [clip.caption for clip in clips] + paraphrases, run.params, world, run)


def main(params: Params, options: argparse.Namespace) -> None:
    """`text encode`."""
    if options.output and not options.captions:
        raise ConfigError(f"--output {options.output} goes with --captions FILE; the data's captions go into a run")
    if options.captions:
        encode_file(params, options)
        return
    with recorded(params, "text", lambda: {"encoders": origins(encoders(params))}) as (run, world):
        encode_run(run, world)
