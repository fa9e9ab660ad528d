"""`python -m moviegen plan`: arithmetic, memory and seconds of a params file's programs, before they are launched."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from moviegen import plan
from moviegen.config import ConfigError, Params
from moviegen.plan.details import memory_details, stage_details
from moviegen.plan.dit_memory import fullest
from moviegen.plan.dry_run import check_possible, dry_run
from moviegen.plan.memory import GROUPS, PARTS
from moviegen.plan.programs import ProgramCost, program_costs
from moviegen.plan.published import MIXKIT_CLIPS
from moviegen.plan.search import Candidate, Search, search, shards_rule
from moviegen.plan.validate import Validation

GIB = 2**30
COLUMNS = ("program", "works on", "as often as", "FLOP", "seconds", "hours")
BUCKET_COLUMNS = ("clip", "samples", "tokens", "FLOP/update", "s/micro-batch", "s/update")
TRAFFIC_COLUMNS = ("collective", "of what", "type", "in each", "among", "calls", "MB")
DRY_RUN_COLUMNS = ("scale", "stage", "clip", "counted", "MindSpore", "with fragments", "counted/MindSpore")
SEARCH_COLUMNS = (
    "ZeRO", "shards", "recompute", "micro-batch", "micro-batches", "samples/update", "s/sample", "GiB/card", "",
)  # fmt: skip


def main(params: Params, options: Namespace) -> None:
    """Prints what the programs cost, or one stage: tables, or, with `--json`, numbers without rounding.

    Raises:
        ConfigError: what is asked for cannot be, such as cards that make no whole hosts, or no clips.
    """
    card = plan.find_card(options.card or params.launch.card or plan.PUBLISHED_CARD)
    if options.cards is not None:
        params = plan.with_cards(params, options.cards, card)
    stages = [options.stage] if options.stage else sorted(params.stages)
    newest = plan.validate_newest(card)
    if options.dry_run:
        print_dry_runs(params, stages)
    elif options.search:
        print_searches({stage: search(params, stage, card, newest.speed) for stage in stages}, params, card, options)
    else:
        print_plan(params, stages, card, newest, options)


def print_plan(params: Params, stages: Sequence[int], card: plan.Card, newest: Validation, options: Namespace) -> None:
    """Prints the plan of all programs, or of one stage."""
    clips = MIXKIT_CLIPS if options.clips is None else options.clips
    if clips < 1:
        raise ConfigError(f"--clips {clips}: a data set has 1 or more")
    clips = min(clips, params.data.max_clips or clips)
    asked = f"stage{options.stage}" if options.stage else None
    costs = program_costs(params, card, newest.speed, clips, asked)
    shown = stages if options.json or options.stage else []
    details = [stage_details(params, stage, card, newest.speed, clips) for stage in shown]
    if options.json:
        print(json.dumps(_json(params, card, newest, clips, costs, details), indent=2))
        return
    cards = f"{params.launch.worker_num} x {card.name}" if is_for_cards(params) else "a CPU"
    print(f"{params.scale} on {cards}, with {clips} clips and their captions:\n")
    _, unit = memory_unit(params)
    print_table([(*COLUMNS, unit, ""), *(program_cells(params, cost, newest.speed) for cost in costs)], left=1)
    print(f"\n{unit} at the fullest moment, by counting:")
    print_table([("program", "", *GROUPS, "all"), *(memory_cells(params, cost) for cost in costs)])
    for stage in details:
        print_stage(params, stage)
    print(f"\n{legend(params, newest)}")


def is_for_cards(params: Params) -> bool:
    """Whether a verdict on a card, and seconds of one, say something about a recipe: not of one for a CPU."""
    return params.launch.device != "CPU"


def memory_unit(params: Params) -> tuple[int, str]:
    """In which memory is shown: its bytes, and its name."""
    return (GIB, "GiB/card") if is_for_cards(params) else (2**20, "MiB/rank")


def program_cells(params: Params, cost: ProgramCost, speed: plan.Speed) -> tuple[str, ...]:
    """A program as the first table has it."""
    work, seconds, hours, verdict = cost.work, "-", "-", ""
    if is_for_cards(params):
        verdict = str(cost.verdict)
        if cost.seconds is not None:
            seconds = _interval((cost.seconds, *speed.interval(cost.seconds)))
        if cost.total_seconds is not None:
            hours = _number(cost.total_seconds / 3600)
    units = "" if work.units is None else f"{work.units:,} x "
    return (
        work.program,
        work.works_on,
        f"{units}{work.unit}",
        plan.si(work.flops.total).strip(),
        seconds,
        hours,
        f"{work.memory.total / memory_unit(params)[0]:,.1f}",
        verdict,
    )


def memory_cells(params: Params, cost: ProgramCost) -> tuple[str, ...]:
    """A program as the second table has it."""
    memory, (unit, _) = cost.work.memory, memory_unit(params)
    sizes = (f"{size / unit:,.2f}" for size in (*memory.groups.values(), memory.total))
    return (cost.work.program, memory.moment, *sizes)


def print_stage(params: Params, stage: Mapping[str, Any]) -> None:
    """Prints each bucket of a stage; of the one that needs most, memory by part and exchanges; its host and disk."""
    buckets, (unit, unit_name) = stage["buckets"], memory_unit(params)
    print("\nEach bucket:")
    print_table(
        [(*BUCKET_COLUMNS, unit_name, "fullest"), *(_bucket_cells(params, bucket) for bucket in buckets)], left=1
    )
    largest = max(buckets, key=lambda bucket: bucket["memory_bytes"]["all"])
    memory = largest["memory_bytes"]
    print(f"\n{unit_name} of {largest['clip']}, {memory['moment']}:")
    print_table([(part, f"{memory['parts'][part] / unit:,.2f}") for part in PARTS if memory["parts"].get(part)])
    tensor = memory["largest_tensor"]
    print(f"largest single tensor: {tensor['name']}, {tensor['bytes'] / unit:,.2f}")
    if largest["exchanges"]:
        print(f"\nWhat a rank exchanges for {largest['clip']}:")
        print_table([TRAFFIC_COLUMNS, *map(_exchange_cells, largest["exchanges"])])
    compiled = ", ".join(f"{graph['samples']} x {graph['tokens']:,}" for graph in stage["graphs"])
    print(f"\nshapes compiled at most: {len(stage['graphs'])} of {len(buckets)} buckets, samples x tokens: {compiled}")
    print(f"\n{_spread(params, stage)}")
    host, checkpoint, reading = stage["host_bytes"], stage["checkpoint_bytes"], stage["reading"]
    print(f"""\
memory of a host: {_bytes(host["start"])} at the start, {_bytes(host["checkpoint"])} at a checkpoint
disk: {_bytes(checkpoint["one"])} a checkpoint, {_bytes(checkpoint["most_at_once"])} at once; latents of all stages \
{_bytes(stage["latents_bytes"])}, embeddings {_bytes(stage["embeddings_bytes"])}
read: {_bytes(reading["update"])} an update{f", {_bytes(reading['rate'])}/s" if is_for_cards(params) else ""}""")


def legend(params: Params, newest: Validation) -> str:
    """What the tables' numbers are."""
    if not is_for_cards(params):
        return """\
Memory is what a process on a CPU takes for this recipe. For seconds `plan --calibrate` measures this machine; the
report's page of costs has them beside what training took."""
    return f"""\
FLOP:     of one of what there is so much of, a stage's on its longest clips; `text` is missing where an encoder of that
          width is not known (moviegen/plan/text.py).
Seconds:  likewise; a stage's with validation and checkpoints spread over its updates. On cards as they are described in
          params/base/cards.yaml, with {newest.software}; in brackets as far off as published rows were that were left
          out of the fit. Sampling is by the speed of training, decoding left out. Nothing published tells how fast
          convolutions and text encoders are (-).
--stage N shows each bucket, memory by part, what is exchanged, host and disk; --search what other recipes there are."""


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
    if not is_for_cards(params):
        print(f"{params.scale} is for a CPU: MindSpore simulates cards alone")
        return
    rows: list[tuple[str, ...]] = [DRY_RUN_COLUMNS]
    for stage in stages:
        clip, memory = fullest(params, stage)
        peak = dry_run(params, stage)
        sizes = (f"{size / GIB:.2f}" for size in (memory.total, peak.used, peak.reserved))
        off = f"{100 * (memory.total / peak.used - 1):+.1f} %"
        rows.append((params.scale, str(stage), str(clip), *sizes, off))
    print_table(rows)
    print("GiB a card, of one update on these clips: as counted here, and as MindSpore's dry run allocates them.")


def print_table(rows: Iterable[Sequence[str]], left: int = 0) -> None:
    """Columns as wide as their longest cell, to the right; the first and `left` at the end are text, to the left."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        end = len(row) - left
        middle = [cell.rjust(width) for cell, width in zip(row[1:end], widths[1:end], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *middle, *row[end:]]).rstrip())


def _json(
    params: Params, card: plan.Card, newest: Validation, clips: int, costs: Sequence[ProgramCost],
    details: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    programs = [
        {
            "program": cost.work.program,
            "works_on": cost.work.works_on,
            "unit": cost.work.unit,
            "units": cost.work.units,
            "flops": vars(cost.work.flops) | {"all": cost.work.flops.total},
            "memory_bytes": memory_details(cost.work.memory),
            "seconds": cost.seconds,
            "available_bytes": cost.verdict.available,
            "fits": cost.verdict.fits,
            "verdict": str(cost.verdict),
        }
        for cost in costs
    ]
    return {
        "scale": params.scale,
        "device": params.launch.device,
        "cards": params.launch.worker_num,
        "card": card.name,
        "software": newest.software,
        "clips": clips,
        "programs": programs,
        "stages": details,
    }


def _bucket_cells(params: Params, bucket: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = ("seconds_a_micro_batch", "seconds_an_update")
    memory = bucket["memory_bytes"]
    return (
        bucket["clip"],
        f"{bucket['samples_an_update']:g}",
        f"{bucket['tokens']:,}",
        plan.si(bucket["flops_an_update"]["all"]).strip(),
        *(_interval(bucket[name]) if is_for_cards(params) else "-" for name in seconds),
        f"{memory['all'] / memory_unit(params)[0]:,.1f}",
        memory["moment"],
    )


def _exchange_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["collective"],
        row["purpose"],
        row["dtype"],
        row["moment"],
        f"{row['ranks']}, {row['group']}",
        f"{row['calls']:,}",
        f"{row['size'] / 1e6:,.1f}",
    )


def _spread(params: Params, stage: Mapping[str, Any]) -> str:
    """What an update takes with all that comes with it, in words."""
    if not is_for_cards(params):
        return f"{stage['updates']:,} updates"
    spread = stage["seconds_an_update"]
    parts = f"{_number(spread['update'])} computed and exchanged, {_number(spread['validation'])} of validation"
    if spread["is_storage_known"]:
        parts += f", {_number(spread['checkpoint'])} of checkpoints, {_number(spread['waiting'])} waiting for batches"
    else:
        parts += "; checkpoints and reading are not in it: the card's `storage` is not published"
    hours = _interval([seconds / 3600 for seconds in stage["seconds_in_all"]])
    return f"{stage['updates']:,} updates, {hours} hours; s an update: {parts}"


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
        _number(one.seconds),
        f"{one.memory.total / GIB:.1f}",
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


def _bytes(size: float) -> str:
    return f"{plan.si(size)}B"


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _interval(seconds: Sequence[float]) -> str:
    likely, low, high = map(_number, seconds)
    return f"{likely} ({low} to {high})"
