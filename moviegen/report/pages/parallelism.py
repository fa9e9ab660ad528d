"""The parallelism page: what the plan computes beside what the stages' runs measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from IPython.display import HTML

from moviegen import plan
from moviegen.config import SIZES, Params, visual_tokens
from moviegen.plan.memory import FLOAT32, HALF, Types
from moviegen.report import markup, provenance, published, results
from moviegen.report.pages.parallelism_proofs import only_on_cards, proven
from moviegen.report.pages.parallelism_swap import exchange
from moviegen.report.plots import INK, SECOND, drawn, panels, styled
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.report.wording import listed, shown

__all__ = ["exchange", "held", "only_on_cards", "proven", "speed", "state", "traffic", "zero"]
SPEEDS = ("medium", "steps", "tokens/s", "waited for data (s a step)", "waited, of all time", "peak memory")
CARD_TYPES = Types(arithmetic=HALF)
MICRO_BATCHES = 5  # an update, in the published scripts of stages 2 and 3
SHADES = ("#6a99bc", "#427293", "#154e6d", "#002642")  # of ZeRO 0 to 3, the deeper the more is divided


def traffic(params: Params, shards: tuple[int, ...] = (1, 2, 4, 8)) -> HTML:
    """Elements each rank sends in one block's self-attention of stage 3, by Ulysses and by gathering tokens."""
    dataset, config = params.recipes[3].dataset, params.dit_config(3)
    tokens = visual_tokens(dataset.longest, *dataset.size)
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
    title = f"Elements sent by a rank in one block, {tokens:,} tokens, computed by moviegen/plan/traffic.py"
    return table(rows, title)


def held(params: Params) -> HTML:
    """Bytes of a parameter that the recipe's types ask for."""
    types = {
        stage: Types.of(recipe.train.settings, params.launch_of(stage)) for stage, recipe in params.recipes.items()
    }
    said = {
        stage: f"its gradient's sum {one.gradient}, AdamW's two moments {one.moment} and {FLOAT32}, and a number of "
        f"the arithmetic {one.arithmetic}"
        for stage, one in types.items()
    }
    stages_of = {words: [stage for stage in said if said[stage] == words] for words in said.values()}
    text = "; ".join(f"in stage {listed(stages)} {words}" for words, stages in stages_of.items())
    return markup.prose(f"In this recipe a weight takes {FLOAT32} bytes; {text}.")


def zero(ranks: int = 8) -> HTML:
    """Memory of each published model's state on each card, by ZeRO stage, against what a card has."""
    sizes = list(published.SUPPORT)
    with styled():
        figure, (axes,) = panels(1, height=2.9)
        for stage, color in enumerate(SHADES):
            memory = [
                plan.state_bytes(SIZES[size], ranks, stage, MICRO_BATCHES, CARD_TYPES).total / 1e9 for size in sizes
            ]
            x = np.arange(len(sizes)) + (stage - 1.5) * 0.2
            patches = axes.bar(x, memory, 0.18, color=color, label=f"ZeRO {stage}" if stage else "no ZeRO")
            backed = {"bbox": {"fc": "white", "ec": "none", "pad": 0.6}, "zorder": 4}  # over the line
            axes.bar_label(patches, fmt="%.3g", fontsize=7, padding=3, color=INK, **backed)
        axes.axhline(published.CARD_MEMORY_GB, color=SECOND, lw=0.9, ls="--", zorder=3, label="one card's memory")
        axes.set_axisbelow(True)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set(ylabel="GB a card", yscale="log")
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
        axes.legend(loc="upper left", fontsize=8)
        return drawn(
            figure,
            f"Weights, gradient sums and optimizer state on each of {ranks} cards, arithmetic in bfloat16",
        )


def state(params: Params, stages: StageRuns) -> HTML:
    """What each rank holds from step to step: computed, and as rank 0's buffers add up when training starts."""
    rows = []
    for stage, run in stages.items():
        lines = results.metrics(run, "state")
        computed = vars(plan.stage_cost(params, stage).state)
        measured = {name: lines[name].iloc[-1] for name in computed} if len(lines) else None
        rows.append(_place(params, stage) | {"": "computed"} | _sizes(computed))
        rows.append(_place(params, stage) | {"": "held by rank 0"})
        absent = provenance.why_absent(params, f"stage{stage}", run)
        rows[-1] |= _sizes(measured) if measured else dict.fromkeys(_sizes(computed), absent)
    return table(rows, f"State of the {params.scale} recipe on one rank, float32", stages.values())


def speed(params: Params, stages: StageRuns) -> HTML:
    """Tokens a second of all ranks, seconds spent waiting for data, and memory, of each medium a stage sees.

    Memory is that of rank 0's card where it has one, else of its process.

    Steps that compile are left out, but of the memory.
    """
    rows = []
    for stage, run in stages.items():
        train, compiled = results.metrics(run, "train"), results.metrics(run, "compile")
        if "tokens_per_second" not in train:
            rows.append(
                _place(params, stage) | dict.fromkeys(SPEEDS, provenance.why_absent(params, f"stage{stage}", run))
            )
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
    return table(rows, f"Speed of the {params.scale} recipe here, all ranks; memory of rank 0", stages.values())


def _place(params: Params, stage: int) -> dict[str, object]:
    """A stage's mesh and ZeRO stage."""
    train, ranks = params.recipes[stage].train, params.launch_of(stage).worker_num
    shards = train.sequence_parallel.shards
    return {"stage": stage, "data x shards": f"{ranks // shards} x {shards}", "ZeRO": train.settings.zero_stage}


def _sizes(state: Mapping[str, int]) -> dict[str, str]:
    """The columns of a `plan.State`, or of what a rank measured."""
    return {name.replace("parameters", "weights"): f"{plan.si(value)}B" for name, value in state.items()}
