"""Drawings of the two networks, made from their configurations."""

from __future__ import annotations

import itertools

import matplotlib
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from moviegen.config import DiTConfig, TAEConfig
from moviegen.report.figures import ACCENT, INK, STYLE, WIDTH, drawn

PALE, WARM, GREY = "#e4edf7", "#fbeadf", "#f1f2f4"


def tae(config: TAEConfig) -> HTML:
    """The encoder's and the decoder's levels, as wide as their channels, with what each compresses."""
    levels = [
        (f"{config.base_channels * multiplier}\nchannels", PALE, 0.7 - 0.13 * level)
        for level, multiplier in enumerate(config.channel_multipliers)
    ]
    video = ("video\nT · H · W", GREY, 0.25)
    latent = (f"{config.latent_channels}\nchannels\n1/8 of\nT, H, W", WARM, 0.34)
    with matplotlib.rc_context(STYLE):
        figure, axes = _sheet(height=2.4)
        for place, (text, color, height) in enumerate([video, *levels, latent, *reversed(levels), video]):
            _box(axes, place / 11 + 0.004, 0.55, 0.082, text, color, height=height, size=7)
        axes.text(
            3 / 11, 0.02, "encoder: each of the first three levels ends\n2x smaller in space, then in time", **_small()
        )
        axes.text(
            8 / 11, 0.02, "decoder: each of the last three levels starts\n2x larger in space, then in time", **_small()
        )
        return drawn(figure, "The Temporal Autoencoder of this recipe; every convolution is a Conv2.5D")


def backbone(config: DiTConfig) -> HTML:
    """The transformer from latent to velocity, with one block opened."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _sheet(height=5.6)
        column = [
            (0.03, f"noisy latent: {config.latent_channels} channels, 1/8 of T, H, W", GREY),
            (0.11, f"patches of 1x2x2, linear to width {config.width}", PALE),
            (0.24, "+ positions: rows of the T, H and W tables", WARM),
            (0.33, "RMSNorm · scale and shift · self-attention · gate", PALE),
            (0.45, "cross-attention to the text", PALE),
            (0.57, f"RMSNorm · scale and shift · SwiGLU {config.ffn_width} · gate", PALE),
            (0.75, "RMSNorm · scale and shift, linear to patches", PALE),
            (0.86, "velocity, of the latent's shape", GREY),
        ]
        axes.add_patch(_rounded(0.27, 0.2, 0.46, 0.47, "none", edge=ACCENT))
        axes.text(0.275, 0.685, f"{config.num_layers} blocks, {config.num_heads} heads", fontsize=8, color=ACCENT)
        for y, text, color in column:
            _box(axes, 0.3, y + 0.03, 0.4, text, color, height=0.06)
        for (below, *_), (above, *_) in itertools.pairwise(column):
            _arrow(axes, (0.5, below + 0.06), (0.5, above))
        widths = " · ".join(str(width) for width in config.text_widths)
        text = f"UL2 · MetaCLIP · ByT5\n{widths}\nlinear and norm, concatenated"
        _box(axes, 0, 0.48, 0.235, text, WARM, height=0.12)
        _arrow(axes, (0.235, 0.48), (0.3, 0.48))
        time = f"time t\nsinusoid {config.frequency_width}, MLP\n6 vectors, plus a table a block"
        _box(axes, 0.765, 0.48, 0.235, time, WARM, height=0.12)
        for y in (0.36, 0.6, 0.78):
            _arrow(axes, (0.765, 0.48), (0.7, y))
        return drawn(figure, "The backbone of this recipe")


def _sheet(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 0.95))
    axes.axis("off")
    return figure, axes


def _box(
    axes: Axes, x: float, y: float, width: float, text: str, color: str, height: float = 0.3, size: float = 7.5
) -> None:
    """A box centred on `y` with its left edge at `x`."""
    axes.add_patch(_rounded(x, y - height / 2, width, height, color))
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=size, color=INK, linespacing=1.35)


def _rounded(x: float, y: float, width: float, height: float, color: str, edge: str = "#b9c0c9") -> FancyBboxPatch:
    shape = "round,pad=0,rounding_size=0.012"
    return FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=color, edgecolor=edge, linewidth=0.9)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#6c747e", "lw": 0.9, "shrinkA": 1, "shrinkB": 1}
    )


def _small() -> dict[str, object]:
    return {"ha": "center", "va": "bottom", "fontsize": 7.5, "color": INK}
