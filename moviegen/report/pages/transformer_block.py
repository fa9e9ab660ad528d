"""Of the transformer's page: one block, drawn as `moviegen.dit.layers.Block` computes it."""

from __future__ import annotations

from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from moviegen.config import DiTConfig
from moviegen.report.diagrams import EDGE, GREY, LINE, PALE, WARM, arrow, box, rounded, sheet
from moviegen.report.plots import ACCENT, INK, drawn, styled

STREAM = 0.085  # where the sum of all outputs runs upwards
SELF, CROSS, FEED = 0.235, 0.405, 0.605  # where the branches leave it, and where they come back
SELF_BACK, CROSS_BACK, FEED_BACK = 0.32, 0.475, 0.755
TIMES = "\N{MULTIPLICATION SIGN}"
BOX, CHIP, SUM = 0.062, 0.03, (0.026, 0.028)
SEEN = (
    "A line, the stream of tokens, runs from the bottom to the top. Before the block, positions are added to it. Three "
    "branches leave it and come back as sums. First RMSNorm, times one plus scale, plus shift, self-attention, times "
    "gate. Then cross-attention, whose keys and values are the text's, without norm and gate. Last RMSNorm, times one "
    "plus scale, plus shift, SwiGLU, which multiplies two products of which one went through silu, and times gate. "
    "Shifts, scales and gates come from the time."
)


def block(config: DiTConfig) -> HTML:
    """Residual sums, modulation, self-attention, cross-attention and SwiGLU, from the bottom upwards."""
    with styled():
        figure, axes = sheet(height=6.2)
        axes.add_patch(rounded(0.02, 0.145, 0.97, 0.69, "none", edge=ACCENT))
        axes.text(0.975, 0.81, f"one of {config.num_layers} blocks", fontsize=8, color=INK, ha="right", va="center")
        _stream(axes, config)
        x = _modulated(axes, SELF, "1")
        x = _step(axes, x, SELF, 0.17, f"self-attention\n{config.num_heads} heads")
        _gate(axes, x, SELF, SELF_BACK, "1")
        _cross(axes, config)
        x = _modulated(axes, FEED, "2")
        x = _swiglu(axes, x, config)
        _gate(axes, x, FEED, FEED_BACK, "2")
        return drawn(figure, "A block: what it adds to the stream of tokens, and how time and text take part", alt=SEEN)


def _stream(axes: Axes, config: DiTConfig) -> None:
    box(axes, 0.0, 0.03, 0.2, f"tokens of width {config.width:,}", GREY, 0.045, 7)
    box(axes, 0.245, 0.1, 0.2, "positions in T, H and W", WARM, 0.045, 7)
    arrow(axes, (0.245, 0.1), (STREAM + SUM[0] / 2, 0.1))
    time = (
        f"time t: {config.frequency_width} sinusoids, two layers, silu, linear:\n"
        "six vectors for all blocks, plus a table of this one:\nshift, scale and gate, 1 and 2"
    )
    box(axes, 0.53, 0.07, 0.46, time, WARM, 0.105, 7)
    sums = (0.1, SELF_BACK, CROSS_BACK, FEED_BACK)
    for start, end in zip((0.0525 - SUM[1] / 2, *sums), (*sums, 0.89 + SUM[1] / 2), strict=True):
        arrow(axes, (STREAM, start + SUM[1] / 2), (STREAM, end - SUM[1] / 2))
    for y in sums:
        _sign(axes, STREAM, y, "+")
    box(axes, 0.0, 0.9125, 0.2, "to the next block", GREY, 0.045, 7)


def _modulated(axes: Axes, y: float, number: str) -> float:
    """The start of a branch: norm and modulation; returns where it ends."""
    x = _step(axes, STREAM, y, 0.1, "RMSNorm", 0.16)
    end = _step(axes, x, y, 0.125, f"{TIMES} (1 + scale)\n+ shift")
    _chip(axes, end - 0.0625, y, f"scale {number}, shift {number}", 0.125)
    return end


def _step(axes: Axes, before: float, y: float, width: float, text: str, x: float | None = None) -> float:
    """An arrow and a box at its end; returns the box's."""
    x = before + 0.03 if x is None else x
    arrow(axes, (before, y), (x, y))
    box(axes, x, y, width, text, PALE, BOX, 7)
    return x + width


def _gate(axes: Axes, before: float, y: float, back: float, number: str) -> None:
    """The end of a branch: the gate, and the way back into the sum."""
    end = _step(axes, before, y, 0.085, f"{TIMES} gate")
    _chip(axes, end - 0.0425, y, f"gate {number}", 0.085)
    _return(axes, end - 0.0425, y, back)


def _chip(axes: Axes, x: float, y: float, text: str, width: float) -> None:
    """What the time gives, below the box that takes it."""
    box(axes, x - width / 2, y - 0.066, width, text, WARM, CHIP, 6.5)
    arrow(axes, (x, y - 0.066 + CHIP / 2), (x, y - BOX / 2))


def _return(axes: Axes, x: float, y: float, back: float) -> None:
    axes.plot([x, x], [y + BOX / 2, back], color=LINE, lw=0.9)
    arrow(axes, (x, back), (STREAM + SUM[0] / 2, back))


def _cross(axes: Axes, config: DiTConfig) -> None:
    """Queries are the stream as it is; there is no norm before it and no gate behind."""
    end = _step(axes, STREAM, CROSS, 0.26, f"cross-attention, {config.num_heads} heads", 0.16)
    box(axes, 0.62, CROSS, 0.235, "text: the encoders' tokens", WARM, BOX, 7)
    arrow(axes, (0.62, CROSS), (end, CROSS))
    axes.text((0.62 + end) / 2, CROSS + 0.008, "keys and values", fontsize=7, ha="center", va="bottom", color=INK)
    _return(axes, end - 0.13, CROSS, CROSS_BACK)


def _swiglu(axes: Axes, before: float, config: DiTConfig) -> float:
    """down(silu(gate(x)) * up(x)), opened."""
    axes.add_patch(rounded(before + 0.02, FEED - 0.085, 0.33, 0.2, "none", edge=LINE))
    axes.text(
        before + 0.03, FEED + 0.097, f"SwiGLU, width {config.ffn_width:,} inside", fontsize=7, va="center", color=INK
    )
    x, product = before + 0.045, before + 0.205
    for y, text in ((FEED + 0.043, "gate, then silu"), (FEED - 0.043, "up")):
        arrow(axes, (before, FEED), (x, y))
        box(axes, x, y, 0.12, text, PALE, 0.05, 7)
        arrow(axes, (x + 0.12, y), (product, FEED + (SUM[1] / 2 if y > FEED else -SUM[1] / 2)))
    _sign(axes, product, FEED, TIMES)
    return _step(axes, product + SUM[0] / 2, FEED, 0.085, "down")


def _sign(axes: Axes, x: float, y: float, sign: str) -> None:
    axes.add_patch(Ellipse((x, y), *SUM, facecolor=GREY, edgecolor=EDGE, zorder=3))
    axes.text(x, y, sign, ha="center", va="center_baseline", fontsize=9, color=INK, zorder=4)
