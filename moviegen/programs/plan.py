"""`python -m moviegen plan`: parameters, arithmetic, memory and seconds of each stage, before anything is launched."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from moviegen import plan
from moviegen.config import Params

COLUMNS = (
    "scale", "stage", "clip", "parameters", "+ tables", "tokens", "FLOP/update",
    "GiB/card", "s/micro-batch", "s/update",
)  # fmt: skip


def main(params: Params, options: Namespace) -> None:
    """Prints what the stages cost: a table, or, with `--json`, numbers without rounding."""
    card = plan.find_card(options.card or plan.PUBLISHED_CARD)
    if options.cards is not None:
        params = plan.with_cards(params, options.cards, card)
    stages = [options.stage] if options.stage else sorted(params.stages)
    newest = plan.validate_newest(card)
    rows = [stage_row(params, stage, card, newest.speed) for stage in stages]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print_table([COLUMNS, *map(cells, rows)])
    where = f"{params.launch.worker_num} x {card.name}"
    print(f"""\
GiB/card: weights, gradients and optimizer state, all float32; activations come on top.
Seconds:  on {where} (params/base/cards.yaml), with {newest.software};
          in brackets: as far off as published rows were that were left out of the fit.""")


def stage_row(params: Params, stage: int, card: plan.Card, speed: plan.Speed) -> dict[str, Any]:
    """What a stage costs, on its longest videos, or on images where it has only those."""
    cost, work = plan.stage_cost(params, stage), plan.stage_work(params, stage)
    micro_batch, update = (f(work, card, speed) for f in (plan.micro_batch_seconds, plan.update_seconds))
    return {
        "scale": params.scale,
        "stage": stage,
        "clip": str(cost.clip),
        "cards": work.cards,
        "card": card.name,
        "parameters": cost.parameters,
        "positions": cost.positions,
        "tokens": cost.tokens,
        "flops_an_update": cost.flops,
        "state_bytes_a_card": cost.state.total,
        "seconds_a_micro_batch": [micro_batch, *speed.interval(micro_batch)],
        "seconds_an_update": [update, *speed.interval(update)],
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as the table has it."""
    return (
        row["scale"],
        str(row["stage"]),
        row["clip"],
        plan.si(row["parameters"]).strip(),
        plan.si(row["positions"]).strip(),
        f"{row['tokens']:,}",
        plan.si(row["flops_an_update"]).strip(),
        f"{row['state_bytes_a_card'] / 2**30:.3g}",
        *(_interval(row[name]) for name in ("seconds_a_micro_batch", "seconds_an_update")),
    )


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _interval(seconds: Sequence[float]) -> str:
    likely, low, high = (f"{value:#.3g}".rstrip(".") for value in seconds)
    return f"{likely} ({low} to {high})"
