"""`python -m moviegen plan`: parameters, arithmetic, memory and seconds of each stage, before anything is launched."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from moviegen import plan
from moviegen.config import Params
from moviegen.plan.dit_memory import fullest
from moviegen.plan.dry_run import check_possible, dry_run
from moviegen.plan.search import Candidate, Search, search, shards_rule

COLUMNS = (
    "scale", "stage", "clip", "parameters", "+ tables", "tokens", "FLOP/update",
    "GiB/card", "s/micro-batch", "s/update",
)  # fmt: skip
DRY_RUN_COLUMNS = ("scale", "stage", "clip", "counted", "MindSpore", "with fragments", "counted/MindSpore")
SEARCH_COLUMNS = (
    "ZeRO", "shards", "recompute", "micro-batch", "micro-batches", "samples/update", "s/sample", "GiB/card", "",
)  # fmt: skip


def main(params: Params, options: Namespace) -> None:
    """Prints what the stages cost: a table, or, with `--json`, numbers without rounding."""
    card = plan.find_card(options.card or params.launch.card or plan.PUBLISHED_CARD)
    if options.cards is not None:
        params = plan.with_cards(params, options.cards, card)
    stages = [options.stage] if options.stage else sorted(params.stages)
    newest = plan.validate_newest(card)
    if options.dry_run:
        print_dry_runs(params, stages)
        return
    if options.search:
        print_searches({stage: search(params, stage, card, newest.speed) for stage in stages}, params, card, options)
        return
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


def print_searches(found: Mapping[int, Search], params: Params, card: plan.Card, options: Namespace) -> None:
    """Prints for each stage the fastest recipe that fits, and why those beside it are not taken."""
    if options.json:
        print(json.dumps({stage: _search_json(one) for stage, one in found.items()}, indent=2))
        return
    for stage, one in found.items():
        cards = params.launch_of(stage).worker_num
        where = f"{params.scale}, stage {stage}, on {cards} x {card.name}"
        print(f"{where}: {one.tried} recipes; {shards_rule(params, stage)}")
        print_table([SEARCH_COLUMNS, *(_search_cells(candidate, words) for candidate, words in one.rows)], left=1)
        if not one.best:
            print(f"None fits with as many samples an update; {plan.stage_verdict(params, stage, card)[1].nearest}")
        print()


def print_dry_runs(params: Params, stages: Sequence[int]) -> None:
    """Prints what the plan counts beside what MindSpore's dry run finds, in GiB a card.

    Raises:
        ConfigError: CANN is not there, or the recipe is for a CPU, which MindSpore does not simulate.
    """
    check_possible()
    if params.launch.device != "Ascend":
        print(f"{params.scale} is for a CPU: MindSpore simulates cards alone")
        return
    rows: list[tuple[str, ...]] = [DRY_RUN_COLUMNS]
    for stage in stages:
        clip, memory = fullest(params, stage)
        peak = dry_run(params, stage)
        sizes = (f"{size / 2**30:.2f}" for size in (memory.total, peak.used, peak.reserved))
        off = f"{100 * (memory.total / peak.used - 1):+.1f} %"
        rows.append((params.scale, str(stage), str(clip), *sizes, off))
    print_table(rows)
    print("GiB a card, of one update on these clips: as counted here, and as MindSpore's dry run allocates them.")


def _search_cells(one: Candidate, words: str) -> tuple[str, ...]:
    way = one.variant
    images, videos, micro_batches = way.batches
    return (
        str(way.zero_stage),
        str(way.shards),
        way.recompute,
        f"{images} + {videos}",
        str(micro_batches),
        f"{one.samples:g}",
        f"{one.seconds:#.3g}".rstrip("."),
        f"{one.memory.total / 2**30:.1f}",
        words,
    )


def _search_json(found: Search) -> dict[str, Any]:
    def numbers(one: Candidate) -> dict[str, Any]:
        values = asdict(one.variant) | one.variant.batches._asdict()
        del values["batches"]
        return values | {
            "samples_an_update": one.samples,
            "seconds_a_sample": one.seconds,
            "bytes_a_card": one.memory.total,
            "available_bytes": one.verdict.available,
            "fits": one.verdict.fits,
            "culprit": one.verdict.culprit,
        }

    shown = [numbers(one) | {"why": words} for one, words in found.rows]
    best = numbers(found.best) if found.best else None
    return {"best": best, "current": numbers(found.current), "tried": found.tried, "shown": shown}


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


def print_table(rows: Sequence[Sequence[str]], left: int = 0) -> None:
    """Columns as wide as their longest cell, to the right, but for `left` at the end: those are text, to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([*padded[: len(row) - left], *row[len(row) - left :]]).rstrip())


def _interval(seconds: Sequence[float]) -> str:
    likely, low, high = (f"{value:#.3g}".rstrip(".") for value in seconds)
    return f"{likely} ({low} to {high})"
