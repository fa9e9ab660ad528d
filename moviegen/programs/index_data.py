"""`python -m moviegen data sample|index`: which clips there are, which are sound, and how they are split.

The index run leaves `ucf101_train.csv`, `ucf101_test.csv`, `mixkit_train.csv`, `mixkit_val.csv` with paths relative to
the data folder, `split.json` with how UCF-101 was split, `quarantine.csv` (path, kind, reason) with what was set aside
and why, and `summary.json`; while files are measured, `metrics.jsonl` counts them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from moviegen import runs
from moviegen.config import ConfigError, Params, from_root
from moviegen.data import assets, datasets, film, samples, ucf101
from moviegen.data.checking import check_clips, copy_notes, rate_notes, rates
from moviegen.data.choice import choose
from moviegen.data.clips import Clip, save_index
from moviegen.data.layouts import find_layout
from moviegen.data.measuring import Unusable, measure
from moviegen.data.splits import SPLITS, data_folder, sample_folder
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.folders import printable


def index(run: runs.Run) -> None:
    """Measures every clip and writes the split."""
    params, folder = run.params, data_folder(run.params)
    if not params.data.root:
        make_sample_set(params)
    with collected_warnings() as notes:
        lists = find_layout(folder)
        chosen = {name: choose(clips, params.data.max_clips, params.seed) for name, clips in lists.items()}
        sound, bad = sound_clips(run, chosen)
        write_quarantine(run, bad)
        splits = divided(params, sound)
        warn_of_copies(splits)
    for name, clips in splits.items():
        save_index(run.folder / f"{name}.csv", clips, folder)
    write_json(run.folder / "split.json", split_record(params, splits, bool(sound["ucf101_test"])))
    summary = {
        "source": params.data.root or "sample set",
        **counts(splits),
        "left_out": left_out(lists, chosen),
        "quarantined": len(bad),
        "set_aside": Counter(unusable.kind for unusable in bad.values()),
        "notes": notes,
        "official": as_published(lists["ucf101"] + lists["ucf101_test"], folder, splits),
    }
    write_json(run.folder / "summary.json", summary)


def make_sample_set(params: Params) -> None:
    """The sample set of a scale, with the film's shots where the parameters name their table."""
    shots = film.shots(from_root(params.data.film)) if params.data.film else ()
    samples.make_sample_set(sample_folder(params), shots, assets.film_clips())


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """A list that gathers the warnings raised inside, each once, for the data page; they are printed at once too."""
    notes: list[str] = []
    show = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is not UserWarning:
            show(message, category, filename, lineno, file, line)
        elif str(message) not in notes:
            notes.append(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        yield notes


def sound_clips(run: runs.Run, lists: Mapping[str, list[Clip]]) -> tuple[dict[str, list[Clip]], dict[Path, Unusable]]:
    """The sound clips of each list, and the files of all lists that are set aside. Warns of rates that differ.

    Raises:
        ConfigError: a list has clips, and none is sound; or measuring them takes too long.
    """
    params, metrics = run.params, runs.MetricsWriter(run.metrics_path)
    metrics.drop_after(0)
    verdicts = measure(params, lists.values(), lambda done, total: metrics.write(kind="file", step=done, steps=total))
    sound: dict[str, list[Clip]] = {}
    set_aside: dict[Path, Unusable] = {}
    for name, clips in lists.items():
        frames = params.ucf101_frames if name.startswith("ucf101") else params.mixkit_frames
        sound[name], bad = check_clips(clips, verdicts, frames, params.data.fps)
        set_aside |= bad
        if clips and not sound[name]:
            listed = "; ".join(f"{path}: {unusable.reason}" for path, unusable in list(bad.items())[:5])
            raise ConfigError(
                f"none of {len(clips)} clips can be used (at least {frames} frames wanted) of the list {name}: {listed}"
            )
        for note in rate_notes(name, sound[name], params.data.fps):
            warnings.warn(note, stacklevel=2)
    return sound, set_aside


def write_quarantine(run: runs.Run, bad: Mapping[Path, Unusable]) -> None:
    """Lists the files that are set aside, and says how many there are."""
    rows = [(printable(path), unusable.kind, unusable.reason) for path, unusable in sorted(bad.items())]
    path = run.folder / "quarantine.csv"
    write_csv(path, ("path", "kind", "reason"), rows)
    if rows:
        kinds = Counter(unusable.kind for unusable in bad.values()).most_common()
        print(f"set aside: {', '.join(f'{count} {kind}' for kind, count in kinds)}; {path} says which")


def divided(params: Params, sound: Mapping[str, list[Clip]]) -> dict[str, list[Clip]]:
    """The clips of each of SPLITS; what the folder itself does not hold out is held out by the parameters."""
    (train, test), (captioned, held_out) = (sound["ucf101"], sound["ucf101_test"]), (sound["train"], sound["val"])
    if not test:
        train, test = datasets.split_ucf101(train, params.data.test_share, params.seed, params.data.split)
    if not held_out:
        captioned, held_out = datasets.split_ucf101(captioned, seed=params.seed)
    return dict(zip(SPLITS, (train, test, captioned, held_out), strict=True))


def warn_of_copies(splits: Mapping[str, list[Clip]]) -> None:
    """Warns of what is trained on and held out under two names."""
    train, test, captioned, held_out = splits.values()
    for note in (*copy_notes("UCF-101", train, test), *copy_notes("mixkit", captioned, held_out)):
        warnings.warn(note, stacklevel=2)


def counts(splits: Mapping[str, list[Clip]]) -> dict[str, Any]:
    """How many clips there are, how fast they play, and how many each reader reads."""
    train, test, captioned, held_out = splits.values()
    files = {clip.path: clip.reader for clips in splits.values() for clip in clips}
    return {
        "ucf101": {"train": len(train), "test": len(test), "classes": len({clip.label for clip in train + test})},
        "mixkit": {"train": len(captioned), "val": len(held_out)},
        "rates": {"ucf101": rates(train + test), "mixkit": rates(captioned + held_out)},
        "readers": Counter(files.values()),
    }


def as_published(clips: list[Clip], folder: Path, splits: Mapping[str, list[Clip]]) -> dict[str, Any] | None:
    """What the folder lacks of UCF-101; None where it is not UCF-101. See `ucf101.compare`."""
    official = ucf101.compare(clips, folder)
    if official:
        held_out = ucf101.held_out_groups(splits["ucf101_train"], splits["ucf101_test"])
        official["shipped_split"] = ucf101.is_shipped(held_out)
        print(f"UCF-101 as published: {ucf101.describe(official)}")
    return official


def left_out(lists: Mapping[str, list[Clip]], chosen: Mapping[str, list[Clip]]) -> dict[str, int]:
    """How many clips of each data set are not among the chosen ones."""
    counts = {"UCF-101": 0, "mixkit": 0}
    for name, clips in lists.items():
        counts["UCF-101" if name.startswith("ucf101") else "mixkit"] += len(clips) - len(chosen[name])
    return counts


def split_record(params: Params, splits: Mapping[str, list[Clip]], by_folder: bool) -> dict[str, Any]:
    """How UCF-101 was split: seed, `by`, test share and, by group, each class's `test_groups`.

    A class of a single group, which is divided by clip, has no group there. A data folder that holds `train` and `test`
    is split `by_folder`, whatever the parameters say.
    """
    if by_folder:
        return {"by": "folder"}
    record: dict[str, Any] = {"seed": params.seed, "by": params.data.split, "test_share": params.data.test_share}
    if params.data.split == "group":
        record["test_groups"] = ucf101.held_out_groups(splits["ucf101_train"], splits["ucf101_test"])
    return record


def main(params: Params, options: argparse.Namespace) -> None:
    """`data sample` or `data index`."""
    if options.action == "sample":
        make_sample_set(params)
        return
    with runs.record(runs.find(params, "data")) as run:
        try:
            index(run)
        except (ValueError, FileNotFoundError) as error:  # what `datasets` says of a folder it cannot use
            raise ConfigError(str(error)) from error
