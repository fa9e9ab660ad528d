"""One training stage, counted."""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import Params, visual_tokens
from moviegen.plan.flops import parameter_count, position_count, step_flops
from moviegen.plan.memory import State, state_bytes


@dataclass(frozen=True)
class Cost:
    """One training stage, counted."""

    scale: str
    stage: int
    parameters: int
    positions: int
    tokens: int
    flops: int
    state: State


def stage_cost(params: Params, stage: int) -> Cost:
    """The cost of one optimizer step of a stage, on its largest medium (its longest videos where it has them).

    `flops` is of the whole step: all data-parallel ranks, all accumulated micro-batches.
    """
    recipe, config = params.recipes[stage], params.dit_config(stage)
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    samples = batch.video_batch_size if recipe.dataset.longest > 1 else batch.image_batch_size
    workers = params.launch_of(stage).worker_num
    ranks = workers // recipe.train.sequence_parallel.shards
    tokens = visual_tokens(recipe.dataset.longest, *recipe.dataset.size)
    model, micro_batches = recipe.model, settings.gradient_accumulation_steps
    flops = step_flops(config, tokens, params.text.lengths, model.recompute_every_nth_block, model.not_recompute_fa)
    return Cost(
        scale=params.scale,
        stage=stage,
        parameters=parameter_count(config),
        positions=position_count(config),
        tokens=tokens,
        flops=flops * samples * ranks * micro_batches,
        state=state_bytes(config, workers, settings.zero_stage, micro_batches),
    )


def si(value: float) -> str:
    """Three digits and a prefix: 4_920_000_000 is `4.92 G`."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:#.3g} {prefix}".replace(". ", " ")
    return f"{value:.3g} "
