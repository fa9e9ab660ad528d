"""Of the cost page: what a card holds, by part, against what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from IPython.display import HTML

from moviegen.config import Bucket, Params, load
from moviegen.plan.dit_memory import fullest
from moviegen.plan.memory import Memory
from moviegen.plan.tae_memory import PHASES, sampling_memory, tae_encoding_memory, tae_training_memory
from moviegen.plan.verdict import Verdict
from moviegen.report import markup, results
from moviegen.report.planned import GIB, gib, grouped, published_card, room
from moviegen.report.plots import INK, SECOND, drawn, panels, styled
from moviegen.report.results import StageRuns
from moviegen.report.tables import table
from moviegen.runs import Run

PUBLISHED = ("1B", "5B", "30B")
COLORS = ("#16406e", "#6a96c4", "#c2571a", "#3f8f6b", "#e0a83e", "#9aa3ad")  # of GROUPS


class Need(NamedTuple):
    """What a program asks of a card, and what it then works on."""

    name: str
    clip: str
    memory: Memory


def published_needs() -> list[Need]:
    """Of each training stage of each published size, of the autoencoder, which they share, and of sampling."""
    scales = {size: load(size) for size in PUBLISHED}
    needs = [need._replace(name=f"{size}, {need.name}") for size in PUBLISHED for need in stage_needs(scales[size])]
    needs += autoencoder_needs(scales[PUBLISHED[0]])
    return needs + [sampling_need(scales[size])._replace(name=f"{size}, sampling") for size in PUBLISHED]


def stage_needs(params: Params) -> list[Need]:
    """Of the three training stages, on the bucket that needs most."""
    needs = []
    for stage in params.recipes:
        clip, memory = fullest(params, stage)
        needs.append(Need(f"stage {stage}", str(clip), memory))
    return needs


def autoencoder_needs(params: Params) -> list[Need]:
    """Of the autoencoder's training phases, and of encoding the longest clips."""
    needs = []
    for phase, group in PHASES.items():
        stage = getattr(params.tae, group)
        clip = f"{stage.batch_size} x {Bucket(stage.frames, *stage.size)}"
        needs.append(Need(f"TAE, {phase}", clip, tae_training_memory(params, phase)))
    longest = params.recipes[3].dataset.longest_clip
    encoding = tae_encoding_memory(params, (longest.frames, longest.height, longest.width))
    return [*needs, Need("TAE, encoding", str(longest), encoding)]


def sampling_need(params: Params) -> Need:
    """Of sampling, or decoding what was sampled, whichever needs more."""
    clip = Bucket(params.sample.frames, *params.sample.size)
    return Need("sampling", f"{params.sample.batch_size} x {clip}", sampling_memory(params))


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
            | {group: f"{size / GIB:.1f}" for group, size in grouped(need.memory).items()}
            | {"all": f"{need.memory.total / GIB:.1f}", "fits": "yes" if verdict.fits else "no"}
            | {"free": f"{verdict.free / GIB:.1f}"}
        )
    return table(rows, f"The same in GiB; free: of {gib(_published_room())}, below 0 what is missing")


def memory_here(params: Params) -> HTML:
    """A bar for each program of this report's own recipe, on cards against what one leaves them."""
    limit = None if params.launch.device == "CPU" else room(params)
    caption = f"The {params.scale} recipe of this report: memory at the fullest moment of a step, by counting"
    return _bars(needs_here(params), limit, caption)


def memory_measured(
    params: Params, stages: StageRuns, autoencoders: Mapping[str, Run | None], sample: Run | None
) -> HTML:
    """What was counted of this report's recipe beside the highest memory of the processes that ran it."""
    runs = [*stages.values(), *autoencoders.values(), sample]
    names = [f"stage {stage}" for stage in stages] + [name.replace("tae-", "TAE, ") for name in autoencoders]
    found = dict(zip([*names, "sampling"], runs, strict=True))
    rows, needs = [], needs_here(params)
    unit, unit_name = _unit(needs)
    for need in needs:
        if need.name in found:
            peak = peak_memory(found[need.name])
            sizes = {**grouped(need.memory), "counted": need.memory.total}
            row = {"": need.name} | {name: f"{size / unit:,.1f}" for name, size in sizes.items()}
            rows.append(row | {"measured": f"{peak / unit:,.1f}" if peak else markup.NOT_RUN})
    caption = f"Memory of the {params.scale} recipe in {unit_name}: counted, and the highest measured here"
    return table(rows, caption, runs)


def needs_here(params: Params) -> list[Need]:
    """Of all that this report's recipe trains and samples."""
    return [*stage_needs(params), *autoencoder_needs(params), sampling_need(params)]


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
            for (group, size), color in zip(grouped(need.memory).items(), COLORS, strict=True):
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
