"""How far `moviegen.plan.time` is from published tables of seconds a step, row by row.

Three numbers are fitted for a version of the software: attention's share of the peak, the overhead of a micro-batch,
and whether exchanging is hidden behind computing, all of it or none. They are fitted to half of the rows, and told on
the other half; to all rows but one, and told on that; and to all rows, for planning.

A row is read as the seconds of a micro-batch of its longest videos, or of its images in stage 1: the release counts
micro-steps, not updates. Rows that cannot be that are named, with the reason, and count in no fit and no error.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from moviegen.config import Bucket, ConfigError, Params, load
from moviegen.plan.cards import Card
from moviegen.plan.published import TIMINGS, Timing
from moviegen.plan.time import (
    Speed,
    Work,
    computing_seconds,
    exchanging_seconds,
    micro_batch_seconds,
    overlapped,
    stage_work,
)

# What the measured runs had otherwise than our recipes. The original report's scripts read the folders ul2_emb_300 and
# byt5_emb_100, which are 512 and 128 tokens here; the release's layers hold bfloat16 weights, float32 here; and 5B's
# stage 3 divided no weights.
MEASURED_TEXT = {"text.ul2.max_tokens": 300, "text.byt5.max_tokens": 100}
MEASURED_RECIPES = {"5B": {"stages.3.train.settings.zero_stage": 2}}
MEASURED_WEIGHT_BYTES = 2
SCALE = 0.05  # of errors: larger ones count by their size, not its square, so that an odd row moves others little
FEWEST = 4  # rows to fit three numbers to


@dataclass(frozen=True)
class Measured:
    """Published seconds a micro-step of a stage's recipe, with a version of the software."""

    size: str
    stage: int
    software: str
    seconds: float


@dataclass(frozen=True)
class Case:
    """A published row, and the work that it is read as.

    Attributes:
        longest: a micro-batch of the longest videos, or of images where there are only those.
        image: one of images, where a stage sees both.
        image_ratio: share of the steps that see images, where a stage sees both.
        in_half: whether it is in the half that is fitted.
    """

    measured: Measured
    longest: Work
    image: Work | None
    image_ratio: float
    in_half: bool


@dataclass(frozen=True)
class Row:
    """A published row beside its predictions, all in seconds a micro-step.

    Attributes:
        impossible: why it cannot be a micro-batch of the longest videos; empty: it can.
        fitted: whether it is in the half that is fitted, and possible.
        by_half: as predicted by the fit to that half.
        by_others: by the fit to all rows but this one.
        by_all: by the fit to all rows.
        mixed: by that too, of the recipe's mixture of images and longest videos; None: it has no mixture.
    """

    measured: Measured
    impossible: str
    fitted: bool
    by_half: float
    by_others: float
    by_all: float
    mixed: float | None

    def error(self, predicted: float) -> float:
        """Of a prediction, as a share of what was published; 0.1: 10 % too long."""
        return predicted / self.measured.seconds - 1


class Errors(NamedTuple):
    """Sizes of some rows' errors, as shares of what was published."""

    mean: float
    largest: float


@dataclass(frozen=True)
class Validation:
    """One version of the software: the numbers fitted to all its rows, and each row."""

    software: str
    speed: Speed
    rows: tuple[Row, ...]

    @property
    def possible(self) -> list[Row]:
        """The rows that count."""
        return [row for row in self.rows if not row.impossible]

    @property
    def held_out(self) -> Errors:
        """Of the half that was not fitted."""
        return _errors(row.error(row.by_half) for row in self.possible if not row.fitted)

    @property
    def left_out(self) -> Errors:
        """Of each row, by the fit to all others."""
        return _errors(row.error(row.by_others) for row in self.possible)

    @property
    def fitted(self) -> Errors:
        """Of all rows, by the fit to all of them: not a prediction."""
        return _errors(row.error(row.by_all) for row in self.possible)

    @property
    def coverage(self) -> float:
        """How often one more row would lie in `speed.interval`, were it of the same kind as these."""
        return (len(self.possible) - 1) / (len(self.possible) + 1)


def measured(table: Iterable[Timing]) -> list[Measured]:
    """Both published columns of seconds, one under the other."""
    rows = list(table)
    first = [Measured(row.size, row.stage, "MindSpore 2.3.1", row.mindspore_2_3_1) for row in rows]
    return first + [Measured(row.size, row.stage, "MindSpore 2.7.0", row.mindspore_2_7_0) for row in rows]


def published_cases(rows: Iterable[Measured]) -> dict[str, list[Case]]:
    """The rows of each version, in their order, with the work of `params/<size>.yaml`.

    The half that is fitted is every second one. Of a table of three stages of three sizes that is a chequerboard, with
    all corners: the other half lies between them.
    """
    rows = list(rows)
    params = {size: load(size, MEASURED_TEXT | MEASURED_RECIPES.get(size, {})) for size in {row.size for row in rows}}
    by_version: dict[str, list[Case]] = {}
    for row in rows:
        cases = by_version.setdefault(row.software, [])
        cases.append(_case(row, params[row.size], in_half=len(cases) % 2 == 0))
    return by_version


def validate(rows: Iterable[Measured], card: Card) -> list[Validation]:
    """Each version's rows against what is predicted of them.

    Raises:
        ConfigError: a version has too few rows that are possible.
    """
    return [_validation(software, cases, card) for software, cases in published_cases(rows).items()]


def validate_newest(card: Card) -> Validation:
    """That of the newest published software, by which steps are foretold."""
    return validate(measured(TIMINGS), card)[-1]


def split_errors(cases: Sequence[Case], card: Card) -> list[float]:
    """The mean error on the rest, of each way to fit half of the possible rows (the larger half where they are odd)."""
    possible = [case for case in cases if not impossible(case, cases, card)]
    means = []
    for half in itertools.combinations(possible, (len(possible) + 1) // 2):
        speed = fit(half, card)
        rest = [case for case in possible if case not in half]
        means.append(_errors(_seconds(case, card, speed) / case.measured.seconds - 1 for case in rest).mean)
    return means


def impossible(case: Case, others: Iterable[Case], card: Card) -> str:
    """Why a row cannot be the seconds of a micro-batch of the longest videos; empty: it can.

    Either the card does not compute so fast. Or another row of that size has more of each kind of arithmetic, and takes
    so much longer that not even the kind of which it has most more accounts for it: fewer tokens would be faster each.
    """
    row, work = case.measured, case.longest
    rate, peak = (work.products + work.attention) / row.seconds, card.flops(work.dtype)
    if rate > peak:
        return f"{row.seconds:g} s would take {rate / 1e12:.0f} TFLOP/s, and the card has {peak / 1e12:.0f}"
    for other in others:
        share = min(work.products / other.longest.products, work.attention / other.longest.attention)
        least = share * other.measured.seconds
        if other.measured.size == row.size and share < 1 and row.seconds < least:
            return f"at the rates of stage {other.measured.stage} it takes {least:.2f} s or more, not {row.seconds:g}"
    return ""


def fit(cases: Sequence[Case], card: Card) -> Speed:
    """The numbers with which predictions are nearest to what was measured.

    Every pair of attention's share and overhead on a grid is tried, then on finer ones around the best.

    Raises:
        ConfigError: there are fewer than FEWEST rows.
    """
    if len(cases) < FEWEST:
        raise ConfigError(f"{len(cases)} rows are too few to fit three numbers to: give {FEWEST} or more")
    return min((_nearest(cases, card, hidden) for hidden in (0.0, 1.0)), key=lambda found: found[0])[1]


def _nearest(cases: Sequence[Case], card: Card, hidden: float) -> tuple[float, Speed]:
    """With that share of exchanging hidden, the least cost and what has it."""
    shortest = min(case.measured.seconds for case in cases)
    limits = ((0.02, 1.0), (0.0, shortest))  # no step is all overhead
    bounds = limits
    for _ in range(12):
        shares, overheads = (np.linspace(*bound, 41) for bound in bounds)
        costs = _costs(cases, card, shares[:, None], hidden, overheads)
        row, column = np.unravel_index(np.argmin(costs), costs.shape)
        bounds = (_around(shares, int(row), limits[0]), _around(overheads, int(column), limits[1]))
    return float(costs.min()), Speed(float(shares[row]), float(overheads[column]), hidden)


def _around(values: np.ndarray, index: int, limits: tuple[float, float]) -> tuple[float, float]:
    """Three steps to both sides of one of evenly spaced values, within the limits."""
    reach = 3 * (values[1] - values[0])
    return max(limits[0], values[index] - reach), min(limits[1], values[index] + reach)


def _costs(cases: Sequence[Case], card: Card, shares: np.ndarray, hidden: float, overheads: np.ndarray) -> np.ndarray:
    """Of each pair, the mean over rows of a cost of the log error: its square near 0, its size far from it."""
    costs = []
    for case in cases:
        computed = computing_seconds(case.longest, card, shares)
        exchanged = exchanging_seconds(case.longest, card) / case.longest.micro_batches
        seconds = overlapped(computed, exchanged, hidden) + overheads
        costs.append(np.hypot(1, np.log(seconds / case.measured.seconds) / SCALE))
    return np.mean(costs, axis=0)


def _validation(software: str, cases: Sequence[Case], card: Card) -> Validation:
    reasons = {case: impossible(case, cases, card) for case in cases}
    possible = [case for case in cases if not reasons[case]]
    by_all, by_half = fit(possible, card), fit([case for case in possible if case.in_half], card)
    rows = tuple(
        Row(
            measured=case.measured,
            impossible=reasons[case],
            fitted=case.in_half and not reasons[case],
            by_half=_seconds(case, card, by_half),
            by_others=_seconds(case, card, fit([other for other in possible if other is not case], card)),
            by_all=_seconds(case, card, by_all),
            mixed=_mixed(case, card, by_all),
        )
        for case in cases
    )
    left_out = [row.measured.seconds / row.by_others for row in rows if not row.impossible]
    return Validation(software, replace(by_all, low=min(left_out), high=max(left_out)), rows)


def _case(row: Measured, params: Params, in_half: bool) -> Case:
    recipe = params.recipes[row.stage]
    is_joint = recipe.dataset.longest > 1 and recipe.sees_images
    image = Bucket(1, *recipe.dataset.size)
    return Case(
        measured=row,
        longest=stage_work(params, row.stage, weight_bytes=MEASURED_WEIGHT_BYTES),
        image=stage_work(params, row.stage, image, MEASURED_WEIGHT_BYTES) if is_joint else None,
        image_ratio=recipe.dataloader.image_ratio if is_joint else 0.0,
        in_half=in_half,
    )


def _seconds(case: Case, card: Card, speed: Speed) -> float:
    return micro_batch_seconds(case.longest, card, speed)


def _mixed(case: Case, card: Card, speed: Speed) -> float | None:
    if case.image is None:
        return None
    ratio = case.image_ratio
    return ratio * micro_batch_seconds(case.image, card, speed) + (1 - ratio) * _seconds(case, card, speed)


def _errors(errors: Iterable[float]) -> Errors:
    sizes = [abs(error) for error in errors]
    return Errors(statistics.fmean(sizes), max(sizes))
