"""What each program of the road asks for with a params file: what there is to compute, a card's memory, and seconds.

Seconds are told of the transformer alone, whose training published rows are of; the autoencoder's convolutions and the
text encoders have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moviegen.config import TAE_PHASES, Bucket, Params, latent_size
from moviegen.plan.cards import Card
from moviegen.plan.cost import stage_cost
from moviegen.plan.dit_memory import fullest
from moviegen.plan.duration import stage_duration
from moviegen.plan.flops import Flops, tae_decode, tae_encode, tae_training, tiled_encode
from moviegen.plan.memory import Memory
from moviegen.plan.sampling import (
    sampling_flops,
    sampling_memory,
    sampling_seconds,
    sampling_share,
    samplings,
)
from moviegen.plan.tae_memory import tae_decoding_memory, tae_encoding_memory, tae_training_memory
from moviegen.plan.text import encoding_memory, tower_of
from moviegen.plan.time import Speed
from moviegen.plan.verdict import Verdict, available, sampling_verdict, stage_verdict, tae_verdict


@dataclass(frozen=True)
class ProgramWork:
    """What one program does, again and again.

    Attributes:
        program: as `runs.registry` names it.
        works_on: at once, where that needs most memory: `2 x 256x576x1024`.
        unit: what there is so much of: an update, a clip.
        units: how many; None: that depends on the clips.
        flops: of a unit, a stage's on its longest clips.
        memory: of a card.
        at_once: units that the cards compute at the same time.
    """

    program: str
    works_on: str
    unit: str
    units: int | None
    flops: Flops
    memory: Memory
    at_once: int = 1


@dataclass(frozen=True)
class ProgramCost:
    """A program's work on a kind of card.

    Attributes:
        seconds: of a unit, for a stage with all that comes between updates; None: nothing is known that would tell.
    """

    work: ProgramWork
    verdict: Verdict
    seconds: float | None

    @property
    def total_seconds(self) -> float | None:
        """Of all units, where both are known."""
        if self.seconds is None or self.work.units is None:
            return None
        return self.seconds * -(-self.work.units // self.work.at_once)


def program_works(params: Params, clips: int) -> list[ProgramWork]:
    """Of all programs that compute something with these parameters, in their order on the road.

    Args:
        clips: of the transformer's data set, each with a caption.
    """
    return [
        *(_phase(params, phase) for phase in trained_phases(params)),
        _evaluation(params),
        *_text(params, clips),
        _latents(params, clips),
        *(_stage(params, stage) for stage in params.stages),
        *_samplings(params),
    ]


def program_costs(
    params: Params, card: Card, speed: Speed, clips: int, program: str | None = None
) -> list[ProgramCost]:
    """The same with verdicts, and with seconds where they can be told; of one program alone, if it is counted."""
    works = program_works(params, clips)
    return [_cost(params, work, card, speed, clips) for work in works if program in (None, work.program)]


def trained_phases(params: Params) -> list[str]:
    """The phases of the autoencoder's training that the road takes: given weights take the place of some or all."""
    if params.tae.tae_checkpoint:
        return []
    return [phase for phase in TAE_PHASES if phase != "image" or not params.tae.vae_checkpoint]


def _phase(params: Params, phase: str) -> ProgramWork:
    stage = getattr(params.tae, TAE_PHASES[phase])
    config = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    clip = Bucket(stage.frames, *stage.size)
    clips = stage.batch_size * stage.settings.gradient_accumulation_steps
    every = stage.recompute_every_nth_block if params.launch.device == "Ascend" else 0  # see `tae_training_memory`
    flops = clips * tae_training(config, *clip, every)
    memory = tae_training_memory(params, phase)
    return ProgramWork(f"tae-{phase}", f"{stage.batch_size} x {clip}", "step", stage.steps, flops, memory)


def _evaluation(params: Params) -> ProgramWork:
    settings = params.tae.evaluation
    size = (settings.frames, *settings.size)
    flops = tae_encode(params.tae.model, *size) + tae_decode(params.tae.model, *latent_size(*size))
    memories = (tae_encoding_memory(params, size), tae_decoding_memory(params, size))
    memory = max(memories, key=lambda one: one.total)
    return ProgramWork("tae-evaluation", f"1 x {Bucket(*size)}", "clip and model", None, flops, memory)


def _text(params: Params, clips: int) -> Iterator[ProgramWork]:
    """Nothing where an encoder's sizes are not known, or all are stand-ins, which compute nothing."""
    encoders = {name: one for name, one in params.text.encoders.items() if one.folder}
    found = [(tower_of(name, one), one.max_tokens) for name, one in encoders.items()]
    towers = [(tower, tokens) for tower, tokens in found if tower]
    if not towers or len(towers) < len(found):
        return
    flops = sum((tower.flops(tokens) for tower, tokens in towers), Flops())
    tower, tokens = max(towers, key=lambda one: one[0].weights)
    is_card = params.launch.device == "Ascend"
    memory = max((encoding_memory(*one, is_card) for one in towers), key=lambda memory: memory.total)
    yield ProgramWork("text", f"{tower.name}, {tokens} tokens", "caption", clips + 1, flops, memory)


def _latents(params: Params, clips: int) -> ProgramWork:
    clip = params.recipes[3].dataset.longest_clip
    flops = tiled_encode(params.tae.model, params.tae.tiling, clip)
    memory = tae_encoding_memory(params, params.tae.tiling.largest(*clip))
    return ProgramWork("latents", f"1 x {clip}", "clip", clips, flops, memory)


def _stage(params: Params, stage: int) -> ProgramWork:
    clip, memory = fullest(params, stage)
    recipe = params.recipes[stage]
    samples = recipe.dataloader.batch_size.samples(clip)
    flops = stage_cost(params, stage).arithmetic
    return ProgramWork(f"stage{stage}", f"{samples} x {clip}", "update", recipe.train.steps, flops, memory)


def _samplings(params: Params) -> Iterator[ProgramWork]:
    for program, one in samplings(params).items():
        flops, memory = sampling_flops(params, one), sampling_memory(params, one)
        groups = sampling_share(params, one.stage).groups
        yield ProgramWork(program, f"{one.samples} x {one.clip}", "batch", one.batches, flops, memory, groups)


def _cost(params: Params, work: ProgramWork, card: Card, speed: Speed, clips: int) -> ProgramCost:
    program, verdict, seconds = work.program, Verdict(work.memory, available(params, card)), None
    if program.startswith("stage"):
        stage = int(program.removeprefix("stage"))
        verdict = stage_verdict(params, stage, card)[1]
        seconds = stage_duration(params, stage, card, speed, clips).each
    elif program.removeprefix("tae-") in TAE_PHASES:
        verdict = tae_verdict(params, program.removeprefix("tae-"), card)
    elif program in (sampled := samplings(params)):
        seconds = sampling_seconds(params, sampled[program], card, speed)
        if program == "sample":
            verdict = sampling_verdict(params, card)
    return ProgramCost(work, verdict, seconds)
