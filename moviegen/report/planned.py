"""What the plan foretells of a program that was not run here: cards, memory, arithmetic and seconds."""

from __future__ import annotations

import functools

from IPython.display import HTML

from moviegen import plan
from moviegen.config import Bucket, Params, latent_size, visual_tokens
from moviegen.plan.memory import STATE, Memory
from moviegen.plan.tae_memory import PHASES, tae_encoding_memory
from moviegen.plan.validate import Validation
from moviegen.plan.verdict import Verdict, available, sampling_verdict, stage_verdict, tae_verdict
from moviegen.report.tables import table
from moviegen.report.wording import shown

GIB = 2**30
GROUPS = {  # of the parts of a `Memory`, for readers
    "state": STATE,
    "gradients": ("gradients", "reduce buffers"),
    "casts and gathers": ("weight casts", "gathered weights"),
    "kept activations": ("block inputs", "activations", "attention"),
    "live block": ("live block",),
    "text and ends": ("positions", "text", "ends"),
}
AUTOENCODERS = {f"tae-{phase}": phase for phase in PHASES}  # programs -> phases of the autoencoder's training


def planned(params: Params, program: str) -> HTML | None:
    """The plan of a program for cards; None of those that are not counted, and at a scale of this machine."""
    if params.launch.device == "CPU":
        return None
    if program.startswith("stage"):
        facts = _training(params, int(program.removeprefix("stage")))
    elif program in AUTOENCODERS:
        facts = _autoencoder(params, AUTOENCODERS[program])
    elif program == "sample":
        facts = _sampling(params)
    elif program == "latents":
        facts = _encoding(params)
    else:
        return None
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


def grouped(memory: Memory) -> dict[str, int]:
    """Bytes of each of GROUPS."""
    return {group: sum(memory.parts.get(part, 0) for part in parts) for group, parts in GROUPS.items()}


def seconds(value: float) -> str:
    """Foretold seconds with their interval."""
    low, high = newest().speed.interval(value)
    return f"{written(value)} ({written(low)} to {written(high)})"


def _training(params: Params, stage: int) -> dict[str, str]:
    card, speed = published_card(), newest().speed
    work, recipe = plan.stage_work(params, stage), params.recipes[stage]
    clip, verdict = stage_verdict(params, stage, card)
    update, steps = plan.update_seconds(work, card, speed), recipe.train.steps
    hours = [steps * value / 3600 for value in (update, *speed.interval(update))]
    longest = recipe.dataset.longest_clip
    return {
        "cards": f"{work.cards}, of which {work.shards} share a sample" if work.shards > 1 else f"{work.cards}",
        **_memory(verdict, f"{clip} {verdict.memory.moment}"),
        "an update": f"{_many(work.micro_batches, 'micro-batch')}, {_many(work.samples_an_update, 'sample')}, "
        f"{plan.si(plan.stage_cost(params, stage).flops)}FLOP",
        f"seconds a micro-batch of {longest}": seconds(update / work.micro_batches),
        "seconds an update": seconds(update),
        f"hours, {steps:,} updates": "{} ({} to {})".format(*map(written, hours)) + f", were all of {longest}",
        "in brackets": f"as far off as published rows were that were left out of the fit to {newest().software}",
    }


def _autoencoder(params: Params, phase: str) -> dict[str, str]:
    stage = getattr(params.tae, PHASES[phase])
    config = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    clip = Bucket(stage.frames, *stage.size)
    flops = stage.batch_size * plan.tae_training(config, *clip).total
    return {
        **_memory(tae_verdict(params, phase, published_card()), f"batches of {stage.batch_size} x {clip}, float32"),
        "a step, but for its losses": f"{plan.si(flops)}FLOP",
        f"{stage.steps:,} steps": f"{plan.si(stage.steps * flops)}FLOP",
        "seconds": "not foretold: no published row is fitted",
    }


def _sampling(params: Params) -> dict[str, str]:
    settings, config = params.sample, params.dit_config(3)
    clip = Bucket(settings.frames, *settings.size)
    network = 2 * settings.steps * plan.dit_forward(config, visual_tokens(*clip), params.text.lengths)
    decoding = plan.tae_decode(params.tae.model, *latent_size(*clip))
    verdict = sampling_verdict(params, published_card())
    return {
        **_memory(verdict, f"{settings.batch_size} x {clip} {verdict.memory.moment}"),
        f"the transformer, {settings.steps} steps with and without text": f"{plan.si(network.total)}FLOP a clip",
        "decoding": f"{plan.si(decoding.total)}FLOP a clip",
        "seconds": "not foretold: no published row is fitted",
    }


def _encoding(params: Params) -> dict[str, str]:
    clip = params.recipes[3].dataset.longest_clip
    return {
        **_memory(
            Verdict(tae_encoding_memory(params, (clip.frames, clip.height, clip.width)), room(params)), str(clip)
        ),
        "encoding": f"{plan.si(plan.tae_encode(params.tae.model, *clip).total)}FLOP a clip",
    }


def _memory(verdict: Verdict, where: str) -> dict[str, str]:
    return {f"memory a card, {where}": f"{gib(verdict.memory.total)} of {gib(verdict.available)}: {verdict}"}


def _many(count: float, thing: str) -> str:
    plural = "es" if thing.endswith("ch") else "s"
    return f"{count:g} {thing}{'' if count == 1 else plural}"
