"""Of the cost page: sliders over a table that the plan fills when the page is made; they need no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence

import numpy as np
from IPython.display import HTML

from moviegen import plan
from moviegen.config import load
from moviegen.plan.grid import AXES, CARDS, SHARDS, SIZES_SHOWN, Choice, Entry, choices, entries
from moviegen.plan.memory import GROUPS
from moviegen.plan.validate import Validation
from moviegen.report import markup
from moviegen.report.pages.cost_memory import COLORS
from moviegen.report.planned import GIB, published_card, room, written
from moviegen.report.tables import bare_table
from moviegen.report.wording import shown

VALUES = (
    *GROUPS,
    "PFLOP of a card in a micro-batch",
    "s an update",
)  # of the table, a row for each choice; GROUPS in GiB
NAMES = ("model", "cards", "ZeRO", "cards that share a video", "recomputed", "pixels", "frames")
START = Choice("30B", 64, 3, 8, "every block", (576, 1024), 256)
STATIC_CARDS = (8, 64, 1024)

STYLE = """
#recipe-sliders { font: 0.9rem/1.5 system-ui, sans-serif; }
#recipe-sliders label { display: grid; gap: 0 1rem; align-items: center;
  grid-template-columns: minmax(0, 12rem) minmax(4rem, 1fr) minmax(0, 9rem); }
#recipe-sliders output { font-variant-numeric: tabular-nums; }
#recipe-sliders .bar { position: relative; display: flex; height: 1.6rem; margin: 0.3rem 0; background: #8881; }
#recipe-sliders .bar i { position: absolute; top: -0.2rem; bottom: -0.2rem; border-left: 2px dashed #c2571a; }
#recipe-sliders .key span { margin-right: 1.1rem; white-space: nowrap; }
#recipe-sliders .key b { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.35em; }
#recipe-sliders p { margin: 0.5rem 0; }
"""

# float16 is decoded by hand: browsers know it only since 2025. A choice's row is found as in an array of so many axes.
SCRIPT = """
(() => {
  const data = DATA, root = document.getElementById("recipe-sliders");
  const words = new Uint16Array(Uint8Array.from(atob(data.table), c => c.charCodeAt(0)).buffer);
  const half = w => { const e = w >> 10 & 31, m = w & 1023;
    return e == 31 ? NaN : e ? (1 + m / 1024) * 2 ** (e - 15) : m * 2 ** -24; };
  const inputs = [...root.querySelectorAll("input")], part = name => root.querySelector("." + name);
  const text = x => x >= 1000 ? Math.round(x).toLocaleString("en") : x.toPrecision(3);
  function show() {
    const at = inputs.map(input => +input.value);
    inputs.forEach((input, i) => { input.nextElementSibling.textContent = data.axes[i][at[i]]; });
    const row = at.reduce((index, place, i) => index * data.axes[i].length + place, 0);
    const values = Array.from(words.subarray(row * data.width, (row + 1) * data.width), half);
    const parts = values.slice(0, data.groups.length), [work, seconds] = values.slice(data.groups.length);
    const total = parts.reduce((sum, one) => sum + one, 0), most = 1.25 * Math.max(total || 0, data.room);
    const cards = data.cards[at[1]], micro = data.micro[at[0]], clips = cards / data.shards[at[3]] * micro;
    const isPossible = !Number.isNaN(total);
    part("verdict").textContent = !isPossible
      ? "Not possible: so many cards cannot share a video (they divide its heads, and the cards)."
      : total <= data.room ? `Fits: ${total.toFixed(1)} GiB of ${data.room.toFixed(1)} a card, ` +
        `${(data.room - total).toFixed(1)} free.` : `Does not fit: ${total.toFixed(1)} GiB a card, ` +
        `${(total - data.room).toFixed(1)} more than ${data.room.toFixed(1)}.`;
    part("bar").innerHTML = isPossible ? parts.map((one, i) =>
      `<span style="width:${100 * one / most}%;background:${data.colors[i]}"></span>`).join("") +
      `<i style="left:${100 * data.room / most}%"></i>` : "";
    part("key").innerHTML = parts.map((one, i) => `<span><b style="background:${data.colors[i]}"></b>` +
      `${data.groups[i]}${isPossible ? " " + one.toFixed(1) : ""}</span>`).join(" ");
    const exa = work * cards * micro / 1000;
    const batches = micro + (micro > 1 ? " micro-batches" : " micro-batch");
    part("speed").textContent = isPossible
      ? `${text(seconds / micro)} s a micro-batch, ${text(seconds)} s an update of ${batches} and ` +
        `${clips.toLocaleString("en")} clips: ${text(seconds / clips)} s a clip. A card computes ${text(work)} PFLOP ` +
        `in a micro-batch, all of them ${text(exa)} EFLOP in an update.` : "";
  }
  inputs.forEach(input => input.addEventListener("input", show));
  part("panel").hidden = false;
  part("static").hidden = true;
  show();
})();
"""


def sliders(validations: Sequence[Validation]) -> HTML:
    """What the plan foretells where the sliders stand; without JavaScript, a table of some recipes.

    Args:
        validations: of each version of the software; the last is taken.
    """
    card, speed = published_card(), validations[-1].speed
    found = list(entries(card, speed))
    controls = "".join(map(_control, NAMES, AXES, START))
    script = SCRIPT.replace("DATA", json.dumps(_data(found)))
    content = (
        f'<div id="recipe-sliders"><style>{STYLE}</style><div class="panel" hidden>{controls}<p class="verdict"></p>'
        f'<div class="bar"></div><p class="key"></p><p class="speed"></p></div>'
        f'<div class="static">{_static(found)}</div></div><script>{script}</script>'
    )
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


def _control(name: str, values: Sequence[object], start: object) -> str:
    return (
        f'<label>{html.escape(name)}<input type="range" min="0" max="{len(values) - 1}" step="1" '
        f'value="{list(values).index(start)}"><output></output></label>'
    )


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
