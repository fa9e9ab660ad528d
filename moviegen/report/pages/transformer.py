"""The transformer's page: its drawing, its variants and their sizes, and what it is told of the text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from IPython.display import HTML

from moviegen import plan
from moviegen.config import SIZES, DiTConfig, Params, load
from moviegen.report import markup, provenance, published, results
from moviegen.report.diagrams import GREY, PALE, WARM, arrow, box, rounded, sheet
from moviegen.report.encoders import TITLES, text_encoders
from moviegen.report.pages.transformer_block import block
from moviegen.report.plots import ACCENT, INK, drawn, styled
from moviegen.report.tables import table
from moviegen.report.wording import count, listed, sides
from moviegen.runs import Run

__all__ = ["backbone", "block", "positions", "sizes", "text_encoders", "text_inputs"]


def backbone(config: DiTConfig) -> HTML:
    """The transformer from latent to velocity."""
    with styled():
        figure, axes = sheet(height=4.4)
        column = [
            (0.02, f"noisy latent: {config.latent_channels} channels, 1/8 of T, H, W", GREY),
            (0.14, f"patches of 1x2x2, linear to width {config.width:,}", PALE),
            (0.31, "+ positions: rows of the T, H and W tables", WARM),
            (0.44, "a block: self-attention, cross-attention, SwiGLU", PALE),
            (0.67, "RMSNorm · scale and shift, linear to patches", PALE),
            (0.79, "velocity, of the latent's shape", GREY),
        ]
        axes.add_patch(rounded(0.27, 0.27, 0.46, 0.29, "none", edge=ACCENT))
        axes.text(0.275, 0.58, f"{config.num_layers} times", fontsize=8, color=INK)
        for y, text, color in column:
            box(axes, 0.3, y + 0.04, 0.4, text, color, height=0.08)
        for (below, *_), (above, *_) in itertools.pairwise(column):
            arrow(axes, (0.5, below + 0.08), (0.5, above))
        present = {title: width for title, width in zip(TITLES.values(), config.text_widths, strict=True) if width}
        text = f"{' · '.join(present)}\n{' · '.join(map(str, present.values()))}\nlinear and norm, concatenated"
        box(axes, 0, 0.48, 0.235, text, WARM, height=0.17)
        arrow(axes, (0.235, 0.48), (0.3, 0.48))
        time = f"time t\nsinusoid {config.frequency_width}, MLP\n6 vectors, plus a table a block"
        box(axes, 0.765, 0.48, 0.235, time, WARM, height=0.17)
        for y in (0.48, 0.71):
            arrow(axes, (0.765, 0.48), (0.7, y))
        return drawn(
            figure,
            "The backbone of this recipe",
            alt="Boxes from the bottom to the top: the noisy latent, patches, positions that are added before every "
            "block, a block that is repeated, the last layer, the velocity. The text leads into the block, the time "
            "into the block and the last layer.",
        )


def sizes(params: Params, count_run: Run | None) -> HTML:
    """The published variants and this report's own, a column each: parameters counted on the class, and by formula."""
    counted = results.read_json(count_run, "summary.json") or {}
    own, absent = params.recipes[3].model.size, provenance.why_absent(params, "count", count_run)
    columns = {
        name: _variant(
            params.dit_config(3) if name == own else SIZES[name], counted.get(name, {}).get("counted"), absent
        )
        | {"published as": published.PARAMETERS.get(name, "-")}
        for name in dict.fromkeys((own, *published.SUPPORT))
    }
    rows = [
        {"": fact} | {name: facts[fact] for name, facts in columns.items()} for fact in next(iter(columns.values()))
    ]
    return table(rows, "Variants of the transformer and their parameters", [count_run])


def _variant(config: DiTConfig, counted: int | None, absent: str) -> dict[str, object]:
    return {
        "layers": config.num_layers,
        "width": f"{config.width:,}",
        "FFN width": f"{config.ffn_width:,}",
        "heads": config.num_heads,
        "counted on the class": absent if counted is None else f"{counted:,}",
        "by formula": f"{plan.parameter_count(config):,}",
        "rounded": count(plan.parameter_count(config)),
        "position tables (T, H, W)": sides(config.max_size),
        "parameters of these": count(plan.position_count(config)),
    }


def positions(params: Params) -> HTML:
    """How long the position tables of each stage are, and how much longer than those before."""
    sizes = {stage: recipe.model.max_size for stage, recipe in params.recipes.items()}
    lengths = listed(f"{sides(size)} in stage {stage}" for stage, size in sizes.items())
    return markup.prose(
        f"The rows of this recipe's tables, time x height x width, are {lengths}. From stage to stage those of height "
        f"grow {_grown(params)} times; the published recipes' grow {_grown(load('5B'))} times."
    )


def _grown(params: Params) -> str:
    """`2 and 3`: of each stage's table of height against the one before."""
    rows = [recipe.model.max_size[1] for recipe in params.recipes.values()]
    return listed(f"{after / before:g}" for before, after in itertools.pairwise(rows))


def text_inputs(params: Params) -> HTML:
    """What each stage does with padding, and how many captions, and tokens of the others, it drops."""
    masked = {
        stage: "not masked, as when the published weights were trained" if recipe.model.attend_to_padding else "masked"
        for stage, recipe in params.recipes.items()
    }
    dropped = {stage: f"{100 * recipe.dataset.text_drop_prob:g} %" for stage, recipe in params.recipes.items()}
    hidden = {stage: f"{100 * recipe.dataset.token_drop_prob:g} %" for stage, recipe in params.recipes.items()}
    text = f"Padding is {_by_stage(masked)}. Of the training samples {_by_stage(dropped)} have their caption dropped."
    if any(recipe.dataset.token_drop_prob for recipe in params.recipes.values()):
        text += f" Of a caption's tokens {_by_stage(hidden)} are hidden in training: it learns from each of the others."
    return markup.note(text)


def _by_stage(values: Mapping[int, str]) -> str:
    """A value, or each stage's where they differ: `masked in stage 1, not masked in stage 2`."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return listed(f"{value} in stage {stage}" for stage, value in values.items())
