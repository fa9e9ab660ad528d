"""Of the cost page: the largest recipe on ever more cards, and what dividing a video's tokens costs, on paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from IPython.display import HTML

from moviegen import plan
from moviegen.config import SIZES, DiTConfig, load, visual_tokens
from moviegen.plan.memory import HALF
from moviegen.plan.validate import Validation
from moviegen.plan.verdict import Verdict
from moviegen.report import markup
from moviegen.report.planned import GIB, published_card, room, written
from moviegen.report.plots import ACCENT, FAINT, SECOND, drawn, panels, styled
from moviegen.report.tables import table
from moviegen.report.wording import listed, shown

SCALED, SCALED_STAGE = "30B", 3  # what is scaled on paper, whatever the report's own scale
VIDEOS = 64  # of an update there, where they do not grow with the cards
SHARDS = (8, 16, 24, 48)  # as many cards as can share a video's tokens by their 48 heads, whole hosts
MOST_CARDS = 4096
COLORS = (FAINT, "#6a96c4", ACCENT, "#16406e")
PUBLISHED = ("1B", "5B", "30B")
WAYS = (plan.ulysses_traffic, plan.gathered_traffic)


class Scaled(NamedTuple):
    """Points of each of SHARDS: of an update of VIDEOS, and of one micro-batch on every group of cards."""

    strong: list[list[plan.Point]]
    weak: list[list[plan.Point]]


def scaling(validations: Sequence[Validation]) -> Scaled:
    """Strong and weak scaling of the largest recipe, on ever more cards of the published kind.

    Args:
        validations: of each version of the software; the last is taken.
    """
    params, card, speed = load(SCALED), published_card(), validations[-1].speed
    counts = sorted({shards * 2**power for shards in SHARDS for power in range(10)})
    counts = [count for count in counts if count <= MOST_CARDS]
    given = (params, SCALED_STAGE, card, speed)
    return Scaled(
        strong=[plan.strong_scaling(*given, VIDEOS, shards, counts) for shards in SHARDS],
        weak=[plan.weak_scaling(*given, 1, shards, counts) for shards in SHARDS],
    )


def strong_curves(scaled: Scaled) -> HTML:
    """An update of VIDEOS on more cards."""
    return _curves(scaled.strong, is_strong=True)


def weak_curves(scaled: Scaled) -> HTML:
    """Updates of more videos on more cards."""
    return _curves(scaled.weak, is_strong=False)


def scaling_rows(scaled: Scaled) -> HTML:
    """For each number of cards the number of shards with which an update of VIDEOS is fastest."""
    rows = [_row(point) for point in _best(scaled.strong)]
    return table(rows, f"{SCALED}, stage {SCALED_STAGE}, strong scaling: {VIDEOS} videos an update, on paper")


def weak_rows(scaled: Scaled) -> HTML:
    """For each number of cards the number of shards with which most videos an hour are trained on, one a group."""
    rows = [_row(point) for point in _best(scaled.weak)]
    return table(rows, f"{SCALED}, stage {SCALED_STAGE}, weak scaling: one video a group and update, on paper")


def token_sharing() -> HTML:
    """Bytes of one block's exchange by the ways to divide a video's tokens, for each number of cards that share it."""
    config, tokens = load(SCALED).dit_config(SCALED_STAGE), _tokens(SCALED_STAGE)
    rows = []
    for shards in (2, 4, *SHARDS, 2 * config.num_heads):
        swapped, gathered = (HALF * count(config, tokens, shards) for count in WAYS)
        can_swap = config.num_heads % shards == 0
        rows.append(
            {
                "cards that share a video": shards,
                "heads a card": config.num_heads // shards if can_swap else "fewer than one",
                "Ulysses": f"{plan.si(swapped)}B" if can_swap else "not possible",
                "gathered tokens (Megatron-LM)": f"{plan.si(gathered)}B",
                "gathers less below": f"{break_even(config, shards):,.0f} tokens",
            }
        )
    caption = f"Bytes that a card sends in one block of {SCALED}, {tokens:,} tokens, forward, bfloat16"
    return table(rows, f"{caption}; last column: where Ulysses' swaps and gathered weights together are more")


def token_sharing_verdict() -> HTML:
    """Where Megatron's sequence parallelism would send less than Ulysses, and where Ulysses ends."""
    config = load(SCALED).dit_config(SCALED_STAGE)
    counts = [count for count in range(2, config.num_heads + 1) if config.num_heads % count == 0]
    few, many = (break_even(config, count) for count in (counts[-1], counts[0]))
    verdicts = [
        f"stage {stage}'s longest videos have {_tokens(stage):,}: there {_cheaper(config, _tokens(stage), counts)}"
        for stage in (2, SCALED_STAGE)
    ]
    return markup.note(
        "Of tokens alone Ulysses always sends less: gathering sends as many times as much as cards share the video. "
        "But Megatron-LM's matrices stay divided where they are multiplied, and ZeRO 3 gathers them, "
        f"{plan.si(HALF * plan.flops.block_matrix_count(config))}B a block of {SCALED} in bfloat16, twice that in "
        f"float32. Counted with them, for one sample a micro-batch, gathering tokens sends less below {few:,.0f} "
        f"tokens ({counts[-1]} cards share a video) to {many:,.0f} ({counts[0]} cards). Of {SCALED}'s recipe "
        f"{listed(verdicts)}. Ulysses ends where each card has one head: "
        f"{listed(f'{size} at {SIZES[size].num_heads} cards' for size in PUBLISHED)}."
    )


def break_even(config: DiTConfig, shards: int) -> float:
    """Tokens below which gathering them sends less than Ulysses' swaps and ZeRO 3's gathered weights, in one block.

    Both exchange grow with the tokens, the weights do not. Of one sample; weights in the type of the activations.
    """
    many = 10**6
    swapped, gathered = (count(config, many, shards) / many for count in WAYS)
    return plan.flops.block_matrix_count(config) / (gathered - swapped)


def _cheaper(config: DiTConfig, tokens: int, counts: Sequence[int]) -> str:
    """By all that is sent in a block, weights too."""
    gathers = [count for count in counts if tokens < break_even(config, count)]
    if len(gathers) == len(counts):
        return "gathering would send less"
    return f"gathering would send less with {listed(gathers)} cards" if gathers else "Ulysses sends less"


def _tokens(stage: int) -> int:
    """Of a stage's longest videos at the recipe of SCALED."""
    dataset = load(SCALED).recipes[stage].dataset
    return visual_tokens(dataset.longest, *dataset.size)


def _curves(lines: Sequence[Sequence[plan.Point]], is_strong: bool) -> HTML:
    """Seconds of an update, how much longer exchanging takes than computing, and memory, against cards."""
    title = f"s an update of {VIDEOS} videos" if is_strong else "s an update"
    caption = f"strong scaling: {VIDEOS} videos an update" if is_strong else "weak scaling: one video a group of cards"
    with styled({"axes.titlesize": 8.5}):
        figure, (update, ratio, memory) = panels(3, height=3.0, columns=True)
        for points, color in zip(lines, COLORS, strict=True):
            cards = [point.cards for point in points]
            looks = {"color": color, "ms": 3, "lw": 1.2}
            update.plot(
                cards, [point.seconds for point in points], "o-", label=f"{points[0].shards} share a video", **looks
            )
            ratio.plot(cards, [point.exchanged / point.computed for point in points], "o-", **looks)
            memory.plot(cards, [point.memory.total / GIB for point in points], "o-", **looks)
        ratio.axhline(1, color=SECOND, lw=0.9, ls="--")
        memory.axhline(room(load(SCALED)) / GIB, color=SECOND, lw=0.9, ls="--")
        update.set(title=title, **({"yscale": "log"} if is_strong else {"ylim": (0, None)}))
        ratio.set(ylim=(0, None), title="exchanging / computing")
        memory.set(ylim=(0, None), title="GiB a card")
        for axes in (update, ratio, memory):
            axes.set(xscale="log", xlabel="cards")
            axes.xaxis.set_major_formatter("{x:,g}")
        update.yaxis.set_major_formatter("{x:,g}")
        figure.legend(loc="outside upper center", ncols=len(lines), fontsize=7.5)
        ends = "above the dashed lines cards wait, or have no room"
        return drawn(figure, f"{SCALED}, stage {SCALED_STAGE}, on paper, {caption}; {ends}")


def _best(lines: Sequence[Sequence[plan.Point]]) -> list[plan.Point]:
    """For each number of cards the point with the most videos a second."""
    best: dict[int, plan.Point] = {}
    for point in (point for points in lines for point in points):
        other = best.get(point.cards)
        if other is None or point.samples / point.seconds > other.samples / other.seconds:
            best[point.cards] = point
    return [best[cards] for cards in sorted(best)]


def _row(point: plan.Point) -> dict[str, object]:
    verdict = Verdict(point.memory, room(load(SCALED)))
    return {
        "cards": f"{point.cards:,}",
        "share a video": point.shards,
        "videos": f"{point.samples:,}",
        "micro-batches": point.micro_batches,
        "s a micro-batch": shown(point.seconds / point.micro_batches),
        "s an update": written(point.seconds),
        "videos an hour and card": shown(3600 * point.samples / point.seconds / point.cards),
        "gathered": f"{plan.si(point.gathered)}B",
        "swapped": f"{plan.si(point.swapped)}B",
        "GiB a card": f"{point.memory.total / GIB:.1f}",
        "fits": "yes" if verdict.fits else "no",
    }
