"""Of the parallelism page: Ulysses' exchanges drawn in steps, a colour a rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from moviegen.config import Params, load, visual_tokens
from moviegen.report.diagrams import arrow, sheet
from moviegen.report.plots import INK, PALETTE, drawn, styled

LARGEST = "30B"
CARD = "#ffffff"  # what drawings lie on
BACKED = {"boxstyle": "round,pad=0.12", "facecolor": CARD, "edgecolor": "none"}  # words on a rank's colour
SIDE, LEFT, RIGHT = 0.176, 0.035, 0.995
FLOOR, CEILING = 0.36, 0.8


def exchange(params: Params) -> HTML:
    """The tokens and heads of stage 3's self-attention: who holds what, before, between and after the all-to-alls.

    Of a recipe that divides no tokens the largest published one is drawn, and no more ranks than there are colours.
    """
    drawn_of = params if params.recipes[3].train.sequence_parallel.shards > 1 else load(LARGEST)
    dataset, config = drawn_of.recipes[3].dataset, drawn_of.dit_config(3)
    shards, tokens = drawn_of.recipes[3].train.sequence_parallel.shards, visual_tokens(dataset.longest, *dataset.size)
    ranks = shards if shards <= len(PALETTE) else _most_ranks(config.num_heads)
    own, heads = f"{-(-tokens // ranks):,}", config.num_heads // ranks
    by_tokens, by_heads = np.tile(np.arange(ranks), (ranks, 1)), np.tile(np.arange(ranks)[:, None], (1, ranks))
    part = f"a rank: {own} tokens,\nall {config.num_heads} heads"
    whole = f"a rank: all {tokens:,} tokens,\n{heads} of {config.num_heads} heads"
    steps = [
        ("1. tokens divided", f"{part}:\nqueries, keys, values", by_tokens, "to"),
        ("2. heads divided", f"{whole}:\nqueries, keys, values", by_heads, "from"),
        ("3. attention", f"{whole}: every token\nlooks at all others", by_heads, "over"),
        ("4. tokens divided again", f"{part}:\nthe result", by_tokens, "from"),
    ]
    with styled():
        figure, axes = sheet(height=3.5)
        lefts = np.linspace(LEFT, RIGHT - SIDE, len(steps))
        for left, (title, below, owners, sign) in zip(lefts, steps, strict=True):
            _holdings(axes, left, owners, sign)
            axes.text(left, CEILING + 0.03, title, fontsize=8.5, color=INK, weight="bold", va="bottom")
            axes.text(left, FLOOR - 0.09, below, fontsize=7, color=INK, va="top", linespacing=1.35)
        for place, words in ((0, "all-to-all\nof each of\nq, k, v"), (2, "all-to-all\nof the\nresult")):
            _between(axes, lefts[place] + SIDE, lefts[place + 1], words)
        _between(axes, lefts[1] + SIDE, lefts[2], "no\nexchange")
        axes.text(lefts[0] - 0.012, (FLOOR + CEILING) / 2, "heads", rotation=90, fontsize=7.5, ha="right", va="center")
        axes.text(lefts[0] + SIDE / 2, FLOOR - 0.015, "tokens", fontsize=7.5, ha="center", va="top")
        _legend(axes, ranks)
        return drawn(figure, _caption(drawn_of.scale, shards, ranks), alt=_seen(ranks))


def _most_ranks(heads: int) -> int:
    """The largest number that there are colours for and that divides the heads."""
    return max(ranks for ranks in range(1, len(PALETTE) + 1) if heads % ranks == 0)


def _holdings(axes: Axes, left: float, owners: np.ndarray, sign: str) -> None:
    """A square of heads (down) and tokens (across), coloured by who holds each part; what is sent names where to."""
    count = len(owners)
    width, height = SIDE / count, (CEILING - FLOOR) / count
    for row in range(count):
        for column in range(count):
            corner = (left + column * width, CEILING - (row + 1) * height)
            _part(axes, corner, (width, height), PALETTE[owners[row, column]])
            other = owners[column, row]  # who holds it on the other side of the all-to-all
            stays = other == owners[row, column]
            if sign != "over":
                words = "stays" if stays else f"{sign} {other}"
                axes.text(corner[0] + width / 2, corner[1] + height / 2, words, ha="center", va="center", color=INK,
                          fontsize=_size(count), bbox=BACKED)  # fmt: skip
        if sign == "over":
            middle = CEILING - (row + 0.5) * height
            axes.annotate("", (left + SIDE - 0.008, middle), (left + 0.008, middle),
                          arrowprops={"arrowstyle": "<|-|>", "color": CARD, "lw": 1.8})  # fmt: skip


def _part(axes: Axes, corner: tuple[float, float], size: Sequence[float], color: str) -> None:
    axes.add_patch(Rectangle(corner, *size, facecolor=color, edgecolor=CARD, linewidth=1.2))


def _size(count: int) -> float:
    return {4: 5.2, 3: 6.5}.get(count, 7.5)


def _between(axes: Axes, start: float, end: float, words: str) -> None:
    middle = (FLOOR + CEILING) / 2
    arrow(axes, (start + 0.01, middle), (end - 0.01, middle))
    axes.text((start + end) / 2, middle + 0.03, words, ha="center", va="bottom", fontsize=7, color=INK)


def _legend(axes: Axes, ranks: int) -> None:
    for rank in range(ranks):
        x = LEFT + 0.12 * rank
        _part(axes, (x, 0.015), (0.022, 0.055), PALETTE[rank])
        axes.text(x + 0.03, 0.042, f"rank {rank}", fontsize=7.5, va="center", color=INK)


def _caption(scale: str, shards: int, ranks: int) -> str:
    fewer = f", drawn for {ranks} ranks instead of {shards}" if ranks < shards else ""
    return f"Ulysses in steps: who holds which tokens of which heads in a block of {scale}'s stage 3{fewer}"


def _seen(ranks: int) -> str:
    return (
        f"Four squares of heads by tokens, cut into {ranks} by {ranks} parts in the colours of {ranks} ranks. In the "
        "first each rank has a column: some tokens of all heads. An all-to-all leads to the second, where each has a "
        "row: all tokens of some heads; the parts on the diagonal stay where they are. In the third, arrows along each "
        "row stand for attention over all tokens. Another all-to-all leads back to columns."
    )
