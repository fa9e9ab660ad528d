"""`python -m moviegen data sample|index`: which clips there are, which are sound, and how they are split.

The index run leaves `ucf101_train.csv`, `ucf101_test.csv`, `mixkit_train.csv`, `mixkit_val.csv` with paths relative to
the data folder, `split.json` with how UCF-101 was split, `quarantine.csv` with what was set aside and why, and
`summary.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moviegen import runs
from moviegen.config import ConfigError, Params
from moviegen.data import datasets, samples, ucf101
from moviegen.data.checking import check_clips
from moviegen.data.clips import Clip, save_index
from moviegen.data.layouts import find_layout
from moviegen.data.splits import SPLITS, data_folder, sample_folder
from moviegen.runs.files import write_csv, write_json


def index(run: runs.Run) -> None:
    """Checks every clip and writes the split."""
    params, folder = run.params, data_folder(run.params)
    if not params.data.root:
        samples.render_sample_set(folder)
    layout = find_layout(folder)
    ucf, bad = _checked(layout["ucf101"], params.ucf101_frames)
    test, others = _checked(layout["ucf101_test"], params.ucf101_frames)
    captioned, more = _checked(layout["train"], params.mixkit_frames)
    held_out, most = _checked(layout["val"], params.mixkit_frames)
    bad += others + more + most
    divided = bool(test)
    train, test = (
        (ucf, test) if divided else datasets.split_ucf101(ucf, params.data.test_share, params.seed, params.data.split)
    )
    if not held_out:
        captioned, held_out = datasets.split_ucf101(captioned, seed=params.seed)
    for name, clips in zip(SPLITS, (train, test, captioned, held_out), strict=True):
        save_index(run.folder / f"{name}.csv", clips, folder)
    write_json(run.folder / "split.json", split_record(params, train, test, divided))
    write_csv(run.folder / "quarantine.csv", ("path", "reason"), sorted({(str(p), reason) for p, reason in bad}))
    official = ucf101.compare(layout["ucf101"] + layout["ucf101_test"], folder)
    if official:
        official["shipped_split"] = ucf101.is_shipped(ucf101.held_out_groups(train, test))
        print(f"UCF-101 as published: {ucf101.describe(official)}")
    write_json(
        run.folder / "summary.json",
        {
            "source": params.data.root or "rendered sample set",
            "ucf101": {"train": len(train), "test": len(test), "classes": len({clip.label for clip in train + test})},
            "mixkit": {"train": len(captioned), "val": len(held_out)},
            "quarantined": len({str(path) for path, _ in bad}),
            "official": official,
        },
    )


def split_record(params: Params, train: Iterable[Clip], test: Iterable[Clip], divided: bool) -> dict[str, Any]:
    """How UCF-101 was split: seed, `by`, test share and, by group, each class's `test_groups`.

    A class of a single group, which is divided by clip, has no group there. A data folder that is `divided` into
    `train` and `test` itself is split by those folders, whatever the parameters say.
    """
    if divided:
        return {"by": "folder"}
    record = {"seed": params.seed, "by": params.data.split, "test_share": params.data.test_share}
    return record | ({"test_groups": ucf101.held_out_groups(train, test)} if params.data.split == "group" else {})


def main(params: Params, options: argparse.Namespace) -> None:
    """`data sample` or `data index`."""
    if options.action == "sample":
        samples.render_sample_set(sample_folder(params))
        return
    with runs.record(runs.find(params, "data")) as run:
        try:
            index(run)
        except (ValueError, FileNotFoundError) as error:  # what `datasets` says of a folder it cannot use
            raise ConfigError(str(error)) from error


def _checked(clips: list[Clip], min_frames: int) -> tuple[list[Clip], list[tuple[Path, str]]]:
    good, bad = check_clips(clips, min_frames, progress=True) if clips else ([], [])
    if clips and not good:
        listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:5])
        raise ConfigError(f"none of {len(clips)} clips can be used (at least {min_frames} frames wanted): {listed}")
    return good, bad
