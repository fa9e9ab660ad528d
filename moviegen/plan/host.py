"""How fast a machine computes what the networks are made of, as `plan --calibrate` measured it, and seconds from that.

A step is a list of tasks (`host_tasks`): so much of one kind of work, in operators of some size. The calibration has
measured each kind at a few sizes, and

    seconds = sum over tasks of work / rate(kind, size)

where rates are interpolated between sizes, both logarithmic, and beyond the smallest and the largest stay what they are
there. Nothing is fitted to a training step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moviegen.config import ConfigError

CALIBRATION_FILE, STEPS_FILE = "calibration.json", "steps.json"  # in the folder of the program's run
FORMAT = 1  # of the file; another number is refused
MEND = "remove it and run `python -m moviegen plan --calibrate`"
# kind -> what a rate's size is, what its work is
KINDS = {
    "product": ("FLOP of one linear layer forward", "FLOP, forward and both gradients"),
    "attention": ("queries", "FLOP of its matrix products, forward and backward"),
    "spatial": ("channels", "FLOP of a 3 x 3 convolution, forward and both gradients"),
    "frozen": (
        "places, as often as a weight is used",
        "FLOP of a 3 x 3 convolution whose weights stay, forward and the gradient of its input",
    ),
    "temporal": ("channels", "FLOP of a convolution over time, forward and both gradients"),
    "group_norm": ("numbers", "numbers normalised and activated, forward and backward"),
    "modulation": ("numbers", "numbers normalised, modulated, gated and added, forward and backward"),
    "activation": ("numbers", "numbers of a gated SiLU, forward and backward"),
    "pooling": ("numbers", "numbers of a maximum of 2 x 2, forward and backward"),
    "pass": ("numbers", "numbers of an element-wise operator of MindSpore's own"),
    "update": ("weights", "weights that AdamW updates, and the length of their gradient"),
    "average": ("weights", "weights whose moving average follows"),
    "call": ("calls", "calls of a graph"),
    "launch": ("operators", "operators that have almost nothing to do"),
    "all_reduce": ("bytes of a tensor", "bytes added up over the workers"),
    "all_gather": ("bytes of the whole tensor", "bytes gathered from the workers"),
}


@dataclass(frozen=True)
class Task:
    """Some work of one kind.

    Attributes:
        kind: of KINDS, which says what follows is.
        size: of each operator.
        work: of all of them.
    """

    kind: str
    size: float
    work: float


@dataclass(frozen=True)
class Point:
    """What was measured of one kind at one size: work a second, see KINDS."""

    size: float
    rate: float


Rates = Mapping[str, Sequence[Point]]  # by kind


@dataclass(frozen=True)
class Calibration:
    """What a machine was measured to do.

    Attributes:
        machine: as manifests describe it.
        operators: their form.
        rates: by the number of workers that computed at the same time, as they do in a job of so many.
    """

    machine: Mapping[str, Any]
    operators: str
    rates: Mapping[int, Rates]

    def seconds(self, tasks: Iterable[Task], workers: int = 1) -> float:
        """Of all tasks, one after the other, by one of so many workers that all do the same.

        Raises:
            ConfigError: their kind was not measured, or not with so many workers.
        """
        if workers not in self.rates:
            raise ConfigError(f"the calibration is not of {workers} workers but of {sorted(self.rates)}: {MEND}")
        return sum(task.work / rate(self.rates[workers], task.kind, task.size) for task in tasks)

    def content(self) -> dict[str, Any]:
        """As the file has it, in JSON's types."""
        rates = {str(workers): rates_content(kinds) for workers, kinds in self.rates.items()}
        return {"format": FORMAT, "machine": dict(self.machine), "operators": self.operators, "rates": rates}


def rate(rates: Rates, kind: str, size: float) -> float:
    """Work a second of a kind at a size.

    Raises:
        ConfigError: the kind was not measured.
    """
    if not rates.get(kind):
        raise ConfigError(f"the calibration has no {kind}: {MEND}")
    points = sorted(rates[kind], key=lambda point: point.size)
    sizes, speeds = ([math.log(getattr(point, name)) for point in points] for name in ("size", "rate"))
    return math.exp(np.interp(math.log(size), sizes, speeds))


def parse_calibration(content: Any, where: str) -> Calibration:
    """The calibration that a file's JSON value holds.

    Args:
        where: the file, for messages.

    Raises:
        ConfigError: it is no calibration, of another format, or a number in it is none that can be measured.
    """
    if not isinstance(content, dict) or "format" not in content or not isinstance(content.get("rates"), dict):
        raise ConfigError(f"{where} is no calibration: {MEND}")
    if content["format"] != FORMAT:
        raise ConfigError(f"{where} is a calibration of format {content['format']!r}, read here is {FORMAT}: {MEND}")
    machine, operators = content.get("machine"), content.get("operators")
    if not isinstance(machine, dict) or not isinstance(operators, str):
        raise ConfigError(f"{where} does not say on which machine and with which operators it was measured: {MEND}")
    rates = {_workers(name, where): _rates(kinds, f"{where}, rates.{name}") for name, kinds in content["rates"].items()}
    return Calibration(machine, operators, rates)


def rates_content(rates: Rates) -> dict[str, Any]:
    """Rates in JSON's types."""
    return {kind: [asdict(point) for point in points] for kind, points in rates.items()}


def parse_rates(content: Any, where: str) -> Rates:
    """What one number of workers was measured to do, of a file's JSON value; see `parse_calibration`."""
    return _rates(content, where)


def _workers(name: str, where: str) -> int:
    if not name.isdecimal() or int(name) < 1:
        raise ConfigError(f"{where}: rates.{name} is not named after a number of workers: {MEND}")
    return int(name)


def _rates(kinds: Any, where: str) -> Rates:
    if not isinstance(kinds, dict):
        raise ConfigError(f"{where} holds no kinds of work: {MEND}")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ConfigError(f"{where}: {unknown[0]} is no kind of work, those are {', '.join(KINDS)}: {MEND}")
    return {kind: _points(points, f"{where}.{kind}") for kind, points in kinds.items()}


def _points(points: Any, where: str) -> tuple[Point, ...]:
    if not isinstance(points, list) or not points:
        raise ConfigError(f"{where} holds no list of sizes and rates: {MEND}")
    for point in points:
        if not isinstance(point, dict) or set(point) != {"size", "rate"} or not all(map(_is_measured, point.values())):
            raise ConfigError(f"{where}: {point!r} is not a size and a rate, finite and above 0: {MEND}")
    return tuple(Point(float(point["size"]), float(point["rate"])) for point in points)


def _is_measured(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
