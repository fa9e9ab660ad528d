"""What the plan foretells of a program that was not run here: cards, memory, arithmetic and seconds."""

from __future__ import annotations

import functools

from IPython.display import HTML

from moviegen import plan
from moviegen.config import TAE_PHASES, Params
from moviegen.plan.duration import stage_duration, validated
from moviegen.plan.programs import ProgramCost, program_costs
from moviegen.plan.published import MIXKIT_CLIPS
from moviegen.plan.validate import Validation
from moviegen.plan.verdict import available
from moviegen.report.tables import table
from moviegen.report.wording import shown

GIB = 2**30
AUTOENCODERS = {f"tae-{phase}": phase for phase in TAE_PHASES}  # programs -> phases of the autoencoder's training


def planned(params: Params, program: str) -> HTML | None:
    """The plan of a program for cards; None of those that are not counted, and at a scale of this machine."""
    if params.launch.device == "CPU":
        return None
    costs = program_costs(params, published_card(), newest().speed, MIXKIT_CLIPS, program)
    if not costs:
        return None
    (cost,) = costs
    stage = program.removeprefix("stage")
    facts = _training(params, int(stage), cost) if stage != program else _computing(cost)
    rows = [{"planned": name, "value": value} for name, value in facts.items()]
    return table(rows, f"{program}, not run here: what the plan foretells of it on {published_card().name}")


def published_card() -> plan.Card:
    """The card that plans are made for where a page names no other."""
    return plan.find_card(plan.PUBLISHED_CARD)


@functools.cache
def newest() -> Validation:
    """The fit to the newest published software, by which seconds are foretold."""
    return plan.validate_newest(published_card())


def room(params: Params) -> float:
    """Bytes of such a card that a recipe's tensors may take."""
    return available(params, published_card())


def gib(size: float) -> str:
    """Bytes in GiB, MiB below a tenth of one."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"


def written(value: float) -> str:
    """A number with three digits, thousands whole."""
    return f"{value:,.0f}" if value >= 1000 else shown(value)


def seconds(value: float) -> str:
    """Foretold seconds with their interval."""
    low, high = newest().speed.interval(value)
    return f"{written(value)} ({written(low)} to {written(high)})"


def _training(params: Params, stage: int, cost: ProgramCost) -> dict[str, str]:
    card, speed, recipe = published_card(), newest().speed, params.recipes[stage]
    work = plan.stage_work(params, stage)
    longest, update = recipe.dataset.longest_clip, plan.update_seconds(work, card, speed)
    duration = stage_duration(params, stage, card, speed, MIXKIT_CLIPS)
    hours = [value / 3600 for value in (duration.total, *speed.interval(duration.total))]
    seen = validated(params, stage, MIXKIT_CLIPS)
    return {
        "cards": f"{work.cards}, of which {work.shards} share a sample" if work.shards > 1 else f"{work.cards}",
        **_memory(cost),
        "an update": f"{_many(work.micro_batches, 'micro-batch')}, {_many(work.samples_an_update, 'sample')}, "
        f"{plan.si(cost.work.flops.total)}FLOP",
        f"seconds a micro-batch of {longest}": seconds(update / work.micro_batches),
        "seconds an update of such": seconds(update),
        f"of validation on {seen} clips, spread over {recipe.valid.frequency} updates": seconds(duration.validation),
        f"hours, {duration.updates:,} updates": "{} ({} to {})".format(*map(written, hours))
        + f", were all videos of {longest}; without checkpoints",
        "in brackets": f"as far off as published rows were that were left out of the fit to {newest().software}",
    }


def _computing(cost: ProgramCost) -> dict[str, str]:
    """Of what is no training of the transformer."""
    work = cost.work
    told = cost.seconds is not None
    return {
        **_memory(cost),
        f"a {work.unit}": f"{plan.si(work.flops.total)}FLOP",
        f"seconds a {work.unit}": f"{seconds(cost.seconds or 0)}, by the speed of training; decoding comes on top"
        if told
        else "not foretold: no published row is fitted",
    } | ({} if work.units is None else {"of these": f"{work.units:,}"})


def _memory(cost: ProgramCost) -> dict[str, str]:
    memory, verdict = cost.work.memory, cost.verdict
    where = f"{cost.work.works_on}, {memory.moment}"
    return {f"memory a card, {where}": f"{gib(memory.total)} of {gib(verdict.available)}: {verdict}"}


def _many(count: float, thing: str) -> str:
    plural = "es" if thing.endswith("ch") else "s"
    return f"{count:g} {thing}{'' if count == 1 else plural}"
