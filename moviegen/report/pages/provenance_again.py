"""Of the appendix: whether a second report is the same, and whether training that is killed ends where it else does."""

from __future__ import annotations

import html
from itertools import zip_longest
from typing import Any

from IPython.display import HTML
from matplotlib.axes import Axes

from moviegen.config import Params, outputs_folder
from moviegen.proofs import records
from moviegen.report import markup, sections
from moviegen.report.plots import ACCENT, FAINT, INK, SECOND, drawn, panels, styled
from moviegen.report.reproduced import finished
from moviegen.report.tables import table
from moviegen.report.wording import listed
from moviegen.runs.files import read_json

TOPIC = "killed"
AGAIN, PROVE = "make reproduce", "make scale-proof"


def compared(params: Params) -> HTML:
    """How much of this report came out the same in a second one."""
    path = outputs_folder(params) / sections.COMPARISON
    title = "This report beside a second one of the same parameters"
    if not path.is_file():
        return markup.note(f"<b>{title}:</b> not run yet: <code>{AGAIN} SCALE={html.escape(params.scale)}</code>.")
    found = read_json(path, f"remove it, and run `{AGAIN}` again")
    differing = sum(found["differing"].values())
    rows: list[dict[str, Any]] = [
        {"compared": "runs", "count": len(found["runs"])},
        {"compared": "values of their metrics, tables and summaries, and checksums of their other files, and cells of "
         "the pages' tables", "count": f"{found['values']:,}"},
        {"compared": "pictures and clips of the pages, byte by byte", "count": f"{found['pictures']:,}"},
        {"compared": "of all these, not the same", "count": f"{differing:,}" + _where(found["differing"])},
    ]  # fmt: skip
    since = "" if found["runs"] == sorted(run.name for run in finished(params)) else "; runs have changed since"
    return table(rows, title + since)


def _where(differing: dict[str, int]) -> str:
    return f": {listed(differing)}" if differing else ""


def killed() -> HTML:
    """The losses of a stage that was killed again and again, over those of the same stage that never was."""
    record = records.read(TOPIC)
    if record is None or not record["kept"]:
        return markup.note(f"<b>{records.TOPICS[TOPIC]}:</b> not run yet: <code>{PROVE}</code>.")
    found = record["kept"]
    with styled():
        figure, (axes,) = panels(1, height=3.0)
        _draw(axes, found)
        return drawn(figure, _caption(record, found))


def _draw(axes: Axes, found: dict[str, Any]) -> None:
    """Each loss twice, and a mark below for each kill."""
    for name, whole, thin in (("train", FAINT, ACCENT), ("validation", "#f0c4a3", SECOND)):
        said = "training" if name == "train" else name
        one, other = (found[job]["losses"][name] for job in ("undisturbed", "killed"))
        axes.plot(*zip(*one, strict=True), color=whole, lw=5, solid_capstyle="round", label=f"{said}, never killed")
        axes.plot(*zip(*other, strict=True), color=thin, lw=1.1, marker=".", ms=4, label=f"{said}, killed")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.12 * (high - low), high)
    at = [one["step"] for one in found["kills"]]
    axes.plot(at, [low - 0.06 * (high - low)] * len(at), "|", color=INK, ms=9, mew=1.2, label="a kill")
    axes.set(xlabel="step", ylabel="loss", xlim=(0, found["steps"] + 1))
    axes.legend(ncols=2)


def _caption(record: dict[str, Any], found: dict[str, Any]) -> str:
    one, other = found["undisturbed"]["losses"], found["killed"]["losses"]
    points = [pair for name in one for pair in zip_longest(one[name], other[name])]
    differing = sum(first != second for first, second in points)
    equal = f"all {len(points)} losses are equal to the last bit"
    same = f"{differing} of {len(points)} losses differ" if differing else equal
    since = "" if record["code"] == records.code(TOPIC) else "; the code has changed since"
    return f"Loss over {len(found['kills'])} kills, on the loss over none: {same}{since}"
