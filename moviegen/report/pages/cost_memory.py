"""Of the cost page: what a card holds, by part, against what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from IPython.display import HTML

from moviegen.config import Params, load
from moviegen.plan.memory import Memory
from moviegen.plan.programs import program_works
from moviegen.plan.published import MIXKIT_CLIPS
from moviegen.plan.verdict import Verdict
from moviegen.report import provenance, results
from moviegen.report.planned import AUTOENCODERS, GIB, gib, published_card, room
from moviegen.report.plots import ACCENT, INK, SECOND, THIRD, drawn, panels, styled
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.runs import Run

PUBLISHED = ("1B", "5B", "30B")
COLORS = (ACCENT, "#56b4e9", SECOND, THIRD, "#e69f00", "#9aa3ad")  # of GROUPS


class Need(NamedTuple):
    """What a program asks of a card, and what it then works on."""

    name: str
    clip: str
    memory: Memory


def published_needs() -> list[Need]:
    """Of each training stage of each published size, of the autoencoder, which they share, and of sampling."""
    needs = {size: needs_of(load(size)) for size in PUBLISHED}
    stages = [(size, f"stage{stage}") for size in PUBLISHED for stage in load(size).stages]
    shared = [name for name in AUTOENCODERS if name in needs[PUBLISHED[0]]]
    named = [(f"{size}, ", needs[size][name]) for size, name in stages]
    named += [("", needs[PUBLISHED[0]][name]) for name in (*shared, "latents")]
    named += [(f"{size}, ", needs[size]["sample"]) for size in PUBLISHED]
    return [need._replace(name=prefix + need.name) for prefix, need in named]


def needs_of(params: Params) -> dict[str, Need]:
    """Of all programs of a recipe, by their name on the road."""
    works = program_works(params, MIXKIT_CLIPS)
    return {work.program: Need(readable(work.program), work.works_on, work.memory) for work in works}


def readable(program: str) -> str:
    """A program's name as figures have it: `TAE, opl-off`, `stage 3`."""
    return program.replace("tae-", "TAE, ").replace("stage", "stage ")


def memory_bars(needs: Sequence[Need]) -> HTML:
    """A bar for each published program, of the groups of its parts, against what a card leaves them."""
    limit, card = _published_room(), published_card()
    caption = f"dashed: the {gib(limit)} that recipes take of {card.name}'s {gib(card.memory or 0)}"
    return _bars(needs, limit, f"Memory at the fullest moment of a step, by counting; {caption}")


def memory_rows(needs: Sequence[Need]) -> HTML:
    """The same in numbers."""
    rows = []
    for need in needs:
        verdict = Verdict(need.memory, _published_room())
        rows.append(
            {"": need.name, "fullest": need.memory.moment}
            | {group: f"{size / GIB:.1f}" for group, size in need.memory.groups.items()}
            | {"all": f"{need.memory.total / GIB:.1f}", "fits": "yes" if verdict.fits else "no"}
            | {"free": f"{verdict.free / GIB:.1f}"}
        )
    return table(rows, f"The same in GiB; free: of {gib(_published_room())}, below 0 what is missing")


def memory_here(params: Params) -> HTML:
    """A bar for each program of this report's own recipe, on cards against what one leaves them."""
    limit = None if params.launch.device == "CPU" else room(params)
    caption = f"The {params.scale} recipe of this report: memory at the fullest moment of a step, by counting"
    return _bars(list(needs_here(params).values()), limit, caption)


def memory_measured(
    params: Params, stages: StageRuns, autoencoders: Mapping[str, Run | None], sample: Run | None
) -> HTML:
    """What was counted of this report's recipe beside the highest memory of the processes that ran it."""
    runs = {f"stage{stage}": run for stage, run in stages.items()} | dict(autoencoders) | {"sample": sample}
    rows, needs = [], needs_here(params)
    unit, unit_name = _unit(list(needs.values()))
    for program, need in needs.items():
        if program in runs:
            peak = peak_memory(runs[program])
            sizes = {**need.memory.groups, "counted": need.memory.total}
            row = {"": need.name} | {name: f"{size / unit:,.1f}" for name, size in sizes.items()}
            rows.append(
                row
                | {"measured": f"{peak / unit:,.1f}" if peak else provenance.why_absent(params, program, runs[program])}
            )
    caption = f"Memory of the {params.scale} recipe in {unit_name}: counted, and the highest measured here"
    return table(rows, caption, runs.values())


def needs_here(params: Params) -> dict[str, Need]:
    """Of what this report's recipe trains, encodes and samples."""
    needs = needs_of(params)
    names = [f"stage{stage}" for stage in params.stages] + [name for name in AUTOENCODERS if name in needs]
    return {name: needs[name] for name in (*names, "latents", "sample")}


def peak_memory(run: Run | None) -> float | None:
    """The highest of rank 0's card where it has one, else of its process; None where nothing ran."""
    train = results.metrics(run, "train")
    for column in ("card_memory_bytes", "memory_bytes"):
        if column in train:
            return float(train[column].max())
    return run.manifest.get("peak_memory_bytes") if run else None


def _published_room() -> float:
    """The published recipes' own, which all take as much."""
    return room(load(PUBLISHED[0]))


def _unit(needs: Sequence[Need]) -> tuple[int, str]:
    """GiB, or MiB where none needs one."""
    return (GIB, "GiB") if max(need.memory.total for need in needs) >= GIB else (2**20, "MiB")


def _bars(needs: Sequence[Need], limit: float | None, caption: str) -> HTML:
    """One bar a need, the first on top; `limit`: bytes of a card."""
    unit, name = _unit(needs)
    with styled({"axes.grid": False}):
        figure, (axes,) = panels(1, height=1.1 + 0.26 * len(needs))
        for place, need in enumerate(needs):
            is_over, start = limit is not None and need.memory.total > limit, 0.0
            for (group, size), color in zip(need.memory.groups.items(), COLORS, strict=True):
                axes.barh(place, size / unit, 0.72, start, color=color, label=group if place == 0 else None)
                start += size / unit
            text, color = f"{start:,.1f}{', does not fit' if is_over else ''}", SECOND if is_over else INK
            look = {"fontsize": 7.5, "color": color, "bbox": {"fc": "white", "ec": "none", "pad": 0.8}}  # over the line
            axes.annotate(text, (start, place), (4, 0), textcoords="offset points", va="center", **look)
        if limit:
            axes.axvline(limit / unit, color=SECOND, lw=1, ls="--")
        axes.set_yticks(range(len(needs)), [f"{need.name}  ({need.clip})" for need in needs], fontsize=7.5)
        axes.set(ylim=(len(needs) - 0.4, -0.6), xlabel=f"{name} a card" if limit else name)
        axes.margins(x=0.16)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper center", ncols=3, fontsize=7.5)
        return drawn(figure, caption)
