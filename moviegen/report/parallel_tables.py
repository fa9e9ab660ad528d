"""The tables of the parallelism page: what the plan computes beside what the stages' runs measured."""

from __future__ import annotations

from IPython.display import HTML

from moviegen import plan
from moviegen.config import Params
from moviegen.report import markup, results
from moviegen.report.results import shown
from moviegen.runs import Run

StageRuns = dict[int, Run | None]
SPEEDS = ("medium", "steps", "tokens/s", "waited for data (s a step)", "waited, of all time", "peak memory")


def traffic(params: Params, shards: tuple[int, ...] = (1, 2, 4, 8)) -> HTML:
    """Elements each rank sends in one block's self-attention of stage 3, by Ulysses and by gathering tokens."""
    dataset, config = params.recipes[3].dataset, params.dit_config(3)
    tokens = plan.visual_tokens(dataset.longest, *dataset.size)
    rows = [
        {
            "ranks": count,
            "tokens a rank": f"{-(-tokens // count):,}",
            "heads a rank": config.num_heads // count if config.num_heads % count == 0 else "does not divide",
            "Ulysses": plan.si(plan.ulysses_traffic(config, tokens, count)),
            "gathered tokens": plan.si(plan.gathered_traffic(config, tokens, count)),
        }
        for count in shards
    ]
    return markup.table(rows, f"Elements sent by a rank in one block, {tokens:,} tokens, computed by moviegen/plan.py")


def state(params: Params, stages: StageRuns) -> HTML:
    """What each rank holds from step to step: computed, and as rank 0's buffers add up when training starts."""
    rows = []
    for stage, run in stages.items():
        measured = results.metrics(run, "state")
        computed = vars(plan.stage_cost(params, stage).state)
        held = {name: measured[name].iloc[-1] for name in computed} if len(measured) else None
        rows.append(_place(params, stage) | {"": "computed"} | _sizes(computed))
        rows.append(_place(params, stage) | {"": "held by rank 0"})
        rows[-1] |= _sizes(held) if held else dict.fromkeys(_sizes(computed), markup.NOT_RUN)
    return markup.table(rows, f"State of the {params.scale} recipe on one rank, float32", stages.values())


def speed(params: Params, stages: StageRuns) -> HTML:
    """Tokens a second of all ranks, seconds spent waiting for data, and memory, of each medium a stage sees.

    Memory is that of rank 0's card where it has one, else of its process.

    Steps that compile are left out, but of the memory.
    """
    rows = []
    for stage, run in stages.items():
        train, compiled = results.metrics(run, "train"), results.metrics(run, "compile")
        if "tokens_per_second" not in train:
            rows.append(_place(params, stage) | dict.fromkeys(SPEEDS, markup.NOT_RUN))
            continue
        first = set(compiled["step"]) if len(compiled) else set()
        peak = train["card_memory_bytes" if "card_memory_bytes" in train else "memory_bytes"].max()
        for medium, steps in train[~train["step"].isin(first)].groupby("media", sort=False):
            waited, busy = steps["data_wait"], steps["seconds"]
            values = (
                results.MEDIA[medium],
                len(steps),
                f"{steps['tokens_per_second'].median():,.0f}",
                shown(waited.mean()),
                f"{100 * waited.sum() / (waited.sum() + busy.sum()):.1f} %",
                f"{plan.si(peak)}B",
            )
            rows.append(_place(params, stage) | dict(zip(SPEEDS, values, strict=True)))
    return markup.table(rows, f"Speed of the {params.scale} recipe here, all ranks; memory of rank 0", stages.values())


def _place(params: Params, stage: int) -> dict[str, object]:
    """A stage's mesh and ZeRO stage."""
    train, ranks = params.recipes[stage].train, params.launch.worker_num
    shards = train.sequence_parallel.shards
    return {"stage": stage, "data x shards": f"{ranks // shards} x {shards}", "ZeRO": train.settings.zero_stage}


def _sizes(held: dict[str, int]) -> dict[str, str]:
    """The columns of a `plan.State`, or of what a rank measured."""
    return {name.replace("parameters", "weights"): f"{plan.si(value)}B" for name, value in held.items()}
