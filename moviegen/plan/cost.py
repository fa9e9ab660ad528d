"""One training stage, counted."""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import Bucket, Params, visual_tokens
from moviegen.plan.flops import Flops, parameter_count, position_count, shared_training
from moviegen.plan.memory import State, Types, state_bytes


@dataclass(frozen=True)
class Cost:
    """One training stage, counted."""

    scale: str
    stage: int
    clip: Bucket
    parameters: int
    positions: int
    tokens: int
    arithmetic: Flops
    state: State

    @property
    def flops(self) -> int:
        """Of all kinds."""
        return self.arithmetic.total


def stage_cost(params: Params, stage: int, clip: Bucket | None = None) -> Cost:
    """The cost of one optimizer step of a stage; without a clip, on its longest videos, or images if it has only those.

    Its arithmetic is of the whole step: all ranks, all accumulated micro-batches.
    """
    recipe, config = params.recipes[stage], params.dit_config(stage)
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    clip = clip or recipe.dataset.longest_clip
    workers = params.launch_of(stage).worker_num
    shards = recipe.train.sequence_parallel.shards
    tokens = visual_tokens(*clip)
    model, micro_batches = recipe.model, settings.gradient_accumulation_steps
    recompute = (model.recompute_every_nth_block, model.not_recompute_fa)
    sample = shared_training(config, tokens, params.text.lengths, shards, *recompute)
    return Cost(
        scale=params.scale,
        stage=stage,
        clip=clip,
        parameters=parameter_count(config),
        positions=position_count(config),
        tokens=tokens,
        arithmetic=batch.samples(clip) * (workers // shards) * micro_batches * sample,
        state=state_bytes(
            config, workers, settings.zero_stage, micro_batches, Types.of(settings, params.launch_of(stage))
        ),
    )


def si(value: float) -> str:
    """Three digits and a prefix: 4_920_000_000 is `4.92 G`."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:#.3g} {prefix}".replace(". ", " ")
    return f"{value:.3g} "
