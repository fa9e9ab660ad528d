"""Of the cost page: sliders over a table that the plan fills when the page is made; they need no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np
from IPython.display import HTML
from markupsafe import Markup

from moviegen import plan
from moviegen.config import load
from moviegen.plan.grid import AXES, CARDS, SHARDS, SIZES_SHOWN, Choice, Entry, choices, entries
from moviegen.plan.memory import GROUPS
from moviegen.plan.validate import Validation
from moviegen.report import markup
from moviegen.report.pages.cost_memory import COLORS
from moviegen.report.planned import GIB, published_card, room, written
from moviegen.report.tables import bare_table
from moviegen.report.templates import filled
from moviegen.report.wording import shown

VALUES = (
    *GROUPS,
    "PFLOP of a card in a micro-batch",
    "s an update",
)  # of the table, a row for each choice; GROUPS in GiB
NAMES = ("model", "cards", "ZeRO", "cards that share a video", "recomputed", "pixels", "frames")
START = Choice("30B", 64, 3, 8, "every block", (576, 1024), 256)
STATIC_CARDS = (8, 64, 1024)


def sliders(validations: Sequence[Validation]) -> HTML:
    """What the plan foretells where the sliders stand; without JavaScript, a table of some recipes.

    Args:
        validations: of each version of the software; the last is taken.
    """
    card, speed = published_card(), validations[-1].speed
    found = list(entries(card, speed))
    controls = [
        (name, len(values) - 1, values.index(one)) for name, values, one in zip(NAMES, AXES, START, strict=True)
    ]
    content = filled("sliders", controls=controls, static=Markup(_static(found)), data=Markup(json.dumps(_data(found))))
    caption = (
        f"What is foretold on {card.name} with {validations[-1].software}, one clip a micro-batch; dashed: what "
        f"recipes take of a card. All else is as in stage 3 of params/*.yaml"
    )
    return markup.card(content, caption)


def encoded(found: Sequence[Entry | None]) -> str:
    """VALUES of each choice as little-endian float16 in base64; NaN where it is not possible."""
    rows = [_values(entry) if entry else [np.nan] * len(VALUES) for entry in found]
    return base64.b64encode(np.array(rows, "<f2").tobytes()).decode()


def _values(entry: Entry) -> list[float]:
    return [*(size / GIB for size in entry.memory.groups.values()), entry.flops / 1e15, entry.seconds]


def _data(found: Sequence[Entry | None]) -> dict[str, object]:
    """What the script reads."""
    micro = dict.fromkeys(SIZES_SHOWN, 0)
    for choice, entry in zip(choices(), found, strict=True):
        if entry:
            micro[choice.size] = entry.micro_batches
    return {
        "axes": [[_label(value) for value in values] for values in AXES],
        "cards": CARDS,
        "shards": SHARDS,
        "micro": list(micro.values()),
        "groups": list(GROUPS),
        "colors": COLORS,
        "room": room(load(START.size)) / GIB,
        "width": len(VALUES),
        "table": encoded(found),
    }


def _label(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]}x{value[1]}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _static(found: Sequence[Entry | None]) -> str:
    """Each size on a few numbers of cards, all else as the sliders start."""
    rows = []
    for choice, entry in zip(choices(), found, strict=True):
        shown_here = START._replace(size=choice.size, cards=choice.cards)
        if entry is None or choice != shown_here or choice.cards not in STATIC_CARDS:
            continue
        limit, total = room(load(choice.size)), entry.memory.total
        rows.append(
            {
                "model": choice.size,
                "cards": f"{choice.cards:,}",
                "GiB a card": f"{total / GIB:.1f}",
                "fits": "yes" if total <= limit else "no",
                "s a micro-batch": shown(entry.seconds / entry.micro_batches),
                "s an update": written(entry.seconds),
                "clips an update": f"{entry.clips:,g}",
                "FLOP an update": f"{plan.si(entry.flops * choice.cards * entry.micro_batches)}FLOP",
            }
        )
    fixed = START
    where = (
        f"ZeRO {fixed.zero_stage}, {fixed.shards} cards share a video, {fixed.recompute} recomputed, "
        f"{fixed.frames} frames of {_label(fixed.pixels)}"
    )
    return f"<p>With JavaScript there are sliders here. Without, some of what they show: {where}.</p>{bare_table(rows)}"
