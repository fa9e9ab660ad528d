"""`python -m moviegen schedule-error`: how far each schedule ends from a many-step solution, by number of steps.

All start from the same noise and follow the same velocity, that of stage 2's transformer at the size it was trained on
(stage 3's clips hold many times as many tokens). The solution they are compared with takes `reference_steps` equal
steps.

The run leaves `errors.csv` with, for each schedule and number of steps, the error ||x - x_ref|| / ||x_ref|| of the
final latent, its mean and range over the prompts, and the seconds the whole batch took; and `summary.json`.
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
from tqdm import tqdm

from moviegen import runs
from moviegen.config import Params
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.splits import load_split
from moviegen.dit.weights import for_sampling, load_stage
from moviegen.flow import schedule
from moviegen.flow.sampler import Sampler, Velocity, euler, numbered
from moviegen.runs.files import write_csv, write_json
from moviegen.runs.ranks import recorded
from moviegen.text.encoders import encoders, origins

STAGE = 2
LINE_EVERY = 20  # evaluations between two lines of metrics


class Counted:
    """A velocity that says how many times it was asked, to a bar and to `metrics.jsonl`."""

    def __init__(self, velocity: Velocity, total: int, metrics: runs.MetricsWriter) -> None:
        self._velocity, self._total, self._metrics = velocity, total, metrics
        self._bar = tqdm(total=total, desc="schedules", unit="evaluation", disable=None)
        self._done = 0

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        velocity = self._velocity(x, t)
        self._done += 1
        self._bar.update()
        if self._done % LINE_EVERY == 0 or self._done == self._total:
            self._metrics.write(kind="evaluation", step=self._done, steps=self._total)
        return velocity


def relative_errors(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||x - reference|| / ||reference|| of each of a batch: (B, ...) twice -> (B,)."""
    difference, length = (array.reshape(len(x), -1) for array in (x - reference, reference))
    return np.linalg.norm(difference, axis=1) / np.linalg.norm(length, axis=1)


def compare(x: np.ndarray, velocity: Velocity, steps: tuple[int, ...], reference_steps: int) -> tuple[list, float]:
    """Rows (schedule, steps, mean error, least, most, seconds) of every schedule, and the reference's seconds."""
    started = time.perf_counter()
    reference = euler(x, velocity, schedule.linear(reference_steps))
    reference_seconds = time.perf_counter() - started
    rows = []
    for name in schedule.SCHEDULES:
        for count in steps:
            started = time.perf_counter()
            errors = relative_errors(euler(x, velocity, schedule.get(name, count)), reference)
            seconds = time.perf_counter() - started
            rows.append((name, count, *(float(f(errors)) for f in (np.mean, np.min, np.max)), seconds))
    return rows, reference_seconds


def measure(run: runs.Run) -> None:
    """Compares the schedules on the first captions of the validation set."""
    params, settings, seen = run.params, run.params.sample.schedule_error, run.params.recipes[STAGE].dataset
    dit = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed = functools.partial(read_embeddings, embeddings, settings=params.text)
    sampler = Sampler(dit, embed, params.sample.guidance, (seen.longest, *seen.size))
    clips = load_split(run.upstream("data"), "mixkit_val")[: settings.prompts]
    prompts = numbered([clip.caption for clip in clips], params.seed)
    noise, velocity = sampler.noise(prompts), sampler.velocity(prompts)
    velocity(noise, 0.0)  # compiles: no schedule's time holds it
    metrics = runs.MetricsWriter(run.metrics_path)
    metrics.drop_after(0)
    total = settings.reference_steps + len(schedule.SCHEDULES) * sum(settings.steps)
    rows, seconds = compare(noise, Counted(velocity, total, metrics), settings.steps, settings.reference_steps)
    write_csv(run.folder / "errors.csv", ("schedule", "steps", "error", "least", "most", "seconds"), rows)
    summary = {
        "prompts": len(prompts),
        "frames": seen.longest,
        "size": seen.size,
        "guidance": params.sample.guidance,
        "reference_steps": settings.reference_steps,
        "reference_seconds": seconds,
    }
    write_json(run.folder / "summary.json", summary)


def main(params: Params, options: argparse.Namespace) -> None:
    """`schedule-error`."""
    with recorded(params, "schedule-error") as (run, _):
        measure(run)
