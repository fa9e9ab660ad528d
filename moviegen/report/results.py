"""Reads what runs left behind. A file that is not there is `None` or empty, never a made-up number."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from moviegen.config import ConfigError
from moviegen.data.intervals import LEVEL
from moviegen.plan.host import CALIBRATION_FILE, Calibration, parse_calibration
from moviegen.runs import Run, arrays, files


class DamagedFile(ConfigError):
    """What a run left cannot be read; the message says how to have it computed again. See `failure.DAMAGED`."""


StageRuns = dict[int, Run | None]  # the finished run of each training stage, or None
WARM_UP_STEPS = 2  # the first steps compile; they are not the speed of the rest
# the columns of runs' tables that hold names and captions, which may look like numbers
TEXTS = ("caption", "clip", "data_set", "file", "generated", "kind", "label", "model", "path", "prompt", "reason",
         "reference", "schedule")  # fmt: skip
# what a step saw -> how it is called; micro-batches of one update may be of both
MEDIA = {"image": "images", "video": "videos", "mixed": "images and videos"}


def metrics(run: Run | None, kind: str) -> pd.DataFrame:
    """The lines of `metrics.jsonl` of one kind ("train", "validation", "clip", ...), in the order of their steps."""
    lines = [line for line in run.metrics() if line.get("kind") == kind] if run else []
    frame = pd.DataFrame(lines)
    return frame.sort_values("step", ignore_index=True) if "step" in frame else frame


def read_json(run: Run | None, name: str) -> dict[str, Any] | None:
    """A JSON file of the run's folder.

    Raises:
        DamagedFile: it is damaged.
    """
    path = run.folder / name if run else None
    try:
        mend = f"remove {path.parent} to have it computed again" if path else ""
        return files.read_json(path, mend) if path and path.is_file() else None
    except ConfigError as error:
        raise DamagedFile(str(error)) from None


def read_npz(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Arrays of an `.npz` file in a folder of a run's, in the order of `names`.

    Raises:
        DamagedFile: it is damaged.
    """
    try:
        return arrays.read_npz(path, *names, mend=f"remove {path.parent.parent} to have it computed again")
    except ConfigError as error:
        raise DamagedFile(str(error)) from None


def read_csv(run: Run | None, name: str) -> pd.DataFrame | None:
    """A CSV file of the run's folder: texts as they are, "0003" and "NA" too, and an empty cell is an empty text.

    Raises:
        DamagedFile: it is damaged.
    """
    path = run.folder / name if run else None
    if not path or not path.is_file():
        return None
    try:
        _check_rows(path)
        return pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(TEXTS, str))
    except (ValueError, csv.Error) as error:  # pandas' own are some of these
        raise DamagedFile(f"{path} is damaged ({error}): remove {path.parent} to have it computed again") from None


def _check_rows(path: Path) -> None:
    """Refuses a table with a row that is not whole: pandas would fill it up with nothing."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, strict=True)
        columns = len(next(rows, ()))
        for row in rows:
            if len(row) != columns:
                raise ValueError(f"line {rows.line_num} has {len(row)} of {columns} values")


def calibration(run: Run | None) -> Calibration | None:
    """The rates of a machine that a run measured.

    Raises:
        DamagedFile: they are damaged.
    """
    content = read_json(run, CALIBRATION_FILE)
    try:
        return parse_calibration(content, str(run.folder / CALIBRATION_FILE)) if run and content is not None else None
    except ConfigError as error:
        raise DamagedFile(str(error)) from None


def is_of(found: Calibration, machine: Mapping[str, Any]) -> bool:
    """Whether rates were measured on a machine like this one."""
    return all(machine.get(name) == found.machine.get(name) for name in ("cpu", "cores"))


def tae_scores(evaluation: Run | None, data_set: str, model: str) -> dict[str, Any] | None:
    """Clips, means and intervals of one autoencoder on one data set, by the program that made it."""
    return (read_json(evaluation, "summary.json") or {}).get(data_set, {}).get(model)


def step_seconds(run: Run | None, media: str | None = None) -> list[float]:
    """Seconds of each training step that saw one medium, or of all, once compiled; empty: there are too few."""
    train = metrics(run, "train")
    if media and "media" in train:
        train = train[train["media"] == media]
    return list(train["seconds"][WARM_UP_STEPS:]) if "seconds" in train else []


def seconds_per_step(run: Run | None, media: str | None = None) -> float | None:
    """Median time of a training step, of one medium or of all, once compiled."""
    seconds = step_seconds(run, media)
    return statistics.median(seconds) if seconds else None


def is_told_apart(value: float, samples: Sequence[float]) -> bool:
    """Whether a number lies outside the 95 % interval of the samples' median, by their order alone.

    Few samples tell nothing apart: of less than six the interval has no end.
    """
    if not samples:
        return False
    interval = stats.quantile_test(samples, p=0.5).confidence_interval(LEVEL)
    return bool(value < interval.low or value > interval.high)  # an end that is not there is not a number


def last(run: Run | None, kind: str, column: str) -> float | None:
    """The last value a run reported."""
    frame = metrics(run, kind)
    return float(frame[column].dropna().iloc[-1]) if column in frame and frame[column].notna().any() else None
