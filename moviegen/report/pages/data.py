"""The data page: how many clips there are, which were set aside, and what they look like."""

from __future__ import annotations

import html

import numpy as np
from IPython.display import HTML

from moviegen.config import Params, load
from moviegen.config.shapes import PATCH, SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from moviegen.data.clips import Clip, load_index
from moviegen.data.splits import data_folder
from moviegen.data.ucf101 import describe
from moviegen.report import markup, media, published, results
from moviegen.report.credits import film
from moviegen.report.tables import bare_table, table
from moviegen.report.wording import percent, sides
from moviegen.runs import Run

__all__ = ["clips", "film", "quarantine", "sizes", "split", "stills"]

NOTES = 6  # shown of what the index had to say
MOST_SHOWN, SHOWN = 12, 3  # files set aside: all are shown where they are no more, else so many of each kind


def split(params: Params) -> HTML:
    """By which rule clips are held out."""
    rule = "whole groups are" if params.data.split == "group" else "single clips are"
    return markup.prose(
        f"In this report {percent(params.data.test_share)} of each class is held out, and {rule} drawn."
    )


def sizes(params: Params) -> HTML:
    """What heights and widths are divisible by, and what that makes of the published recipes' size."""
    multiple, cropped = SPATIAL_COMPRESSION * PATCH, sides(load("5B").recipes[1].dataset.size)
    return markup.prose(
        f"The autoencoder makes one latent of {SPATIAL_COMPRESSION}x{SPATIAL_COMPRESSION} pixels and "
        f"{TEMPORAL_COMPRESSION} frames, and the transformer one token of {PATCH}x{PATCH} latents, so height and width "
        f"must be divisible by {multiple}. The published recipes are written {published.WRITTEN_SIZE}, whose width is "
        f"not; such clips are cropped to {cropped}. The largest clips of this report's recipe have "
        f"{sides(params.recipes[3].dataset.size)} pixels."
    )


def clips(run: Run | None) -> HTML:
    """How many clips there are, how fast they play, and what is not among them."""
    summary = results.read_json(run, "summary.json")
    if run is None or summary is None:
        return markup.missing("Clips")
    ucf101, mixkit, aside = summary["ucf101"], summary["mixkit"], summary["set_aside"]
    rows = [
        {"data set": "UCF-101", "training": ucf101["train"], "held out": f"{ucf101['test']} (test)"}
        | {
            "frames a second": _rates(summary["rates"]["ucf101"]),
            "note": f"{ucf101['classes']} {'class' if ucf101['classes'] == 1 else 'classes'}",
        },
        {"data set": "mixkit", "training": mixkit["train"], "held out": f"{mixkit['val']} (validation)"}
        | {"frames a second": _rates(summary["rates"]["mixkit"]), "note": ""},
    ]
    notes = {"set aside": ", ".join(f"{count} {kind}" for kind, count in aside.items()) or "no file"}
    if summary["official"]:
        notes["UCF-101 as published"] = describe(summary["official"])
    if any(summary["left_out"].values()):
        left_out = " and ".join(f"{count:,} of {name}" for name, count in summary["left_out"].items() if count)
        notes["left out"] = f"{left_out}, for data.max_clips {run.params.data.max_clips:,}"
    if len(summary["readers"]) > 1:
        notes["read by"] = ", ".join(f"{name}: {count:,}" for name, count in summary["readers"].items())
    rows += [
        {"data set": name, "training": "-", "held out": "-", "frames a second": "-", "note": note}
        for name, note in notes.items()
    ]
    warned = summary["notes"][:NOTES]
    if more := len(summary["notes"]) - len(warned):
        warned.append(f"and {more} more in {run.folder.name}/summary.json")
    remarks = "".join(markup.note(html.escape(note)).data for note in warned)
    return markup.card(bare_table(rows) + remarks, f"Clips of {summary['source']}", [run])


def quarantine(run: Run | None) -> HTML:
    """The files that were set aside and why: each, or where they are many, some of each kind."""
    files = results.read_csv(run, "quarantine.csv")
    if files is None:
        return markup.missing("Files set aside")
    if files.empty:
        return markup.note("No file had to be set aside.")
    shown = files.groupby("kind", sort=False).head(SHOWN) if len(files) > MOST_SHOWN else files
    caption = "Files set aside" if len(shown) == len(files) else f"Some of {len(files):,} files set aside"
    return table(shown.to_dict("records"), caption, [run])


def _rates(rates: list[float]) -> str:
    """The lowest, middle and highest rate in words."""
    if not rates:
        return "not stated"
    low, middle, high = rates
    return f"{middle:.4g}" if low == high else f"{low:.4g} to {high:.4g}, half of them up to {middle:.4g}"


def stills(run: Run | None, index: str, count: int, caption: str, frames: int = 6) -> HTML:
    """Frames of a few clips of an index file, evenly spaced in time: one strip a clip."""
    if run is None or not (run.folder / index).is_file():
        return markup.missing(caption)
    strips = [
        f'<figure class="strip">{media.strip(clip, frames)}'
        f"<figcaption>{html.escape(clip.caption or clip.label)}</figcaption></figure>"
        for clip in _spread(load_index(run.folder / index, data_folder(run.params)), count)
    ]
    return markup.card("".join(strips), f"{caption}, {frames} frames of each", [run])


def _spread(clips: list[Clip], count: int) -> list[Clip]:
    """Evenly spaced ones: neighbours in an index are often clips of one group."""
    return [clips[index] for index in np.unique(np.linspace(0, len(clips) - 1, count).round().astype(int))]
