"""The page of the Temporal Autoencoder's training: its drawing, what inflation changed, losses and their terms."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen.config import TAEConfig
from moviegen.report import markup, results
from moviegen.report.credits import shipped_autoencoders, used_weights
from moviegen.report.curves import losses
from moviegen.report.diagrams import GREY, PALE, WARM, box, sheet
from moviegen.report.plots import INK, drawn, styled
from moviegen.report.tables import table
from moviegen.report.wording import shown
from moviegen.runs import Run

__all__ = ["diagram", "inflation", "losses", "shipped_autoencoders", "terms", "used_weights"]

LAST_STEPS = 10


def diagram(config: TAEConfig) -> HTML:
    """The encoder's and the decoder's levels, as wide as their channels, with what each compresses."""
    levels = [
        (f"{config.base_channels * multiplier}\nchannels", PALE, 0.7 - 0.13 * level)
        for level, multiplier in enumerate(config.channel_multipliers)
    ]
    video = ("video\nT · H · W", GREY, 0.25)
    latent = (f"{config.latent_channels}\nchannels\n1/8 of\nT, H, W", WARM, 0.34)
    centred: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 7.5, "color": INK}
    with styled():
        figure, axes = sheet(height=2.4)
        for place, (text, color, height) in enumerate([video, *levels, latent, *reversed(levels), video]):
            box(axes, place / 11 + 0.004, 0.55, 0.082, text, color, height=height, size=7)
        encoder = "encoder: each of the first three levels ends\n2x smaller in space, then in time"
        decoder = "decoder: each of the last three levels starts\n2x larger in space, then in time"
        axes.text(3 / 11, 0.02, encoder, **centred)
        axes.text(8 / 11, 0.02, decoder, **centred)
        return drawn(figure, "The Temporal Autoencoder of this recipe; every convolution is a Conv2.5D")


def inflation(run: Run | None) -> HTML:
    """What inflating the image autoencoder changed for a single image."""
    measured = results.read_json(run, "inflation.json")
    if measured is None:
        return markup.missing("Image autoencoder and its inflation on one image")
    on = f"on {measured['images']} single images"
    rows = [
        {
            on: "largest difference between the two reconstructions, in [-1, 1]",
            "value": f"{measured['max_difference']:.2e}",
        },
        {on: "PSNR of the image autoencoder (dB), mean over them", "value": shown(measured["psnr_image_vae"], 4)},
    ]
    return table(rows, "The image autoencoder and its inflation", [run])


def terms(trained: dict[str, Run | None]) -> HTML:
    """Each term of the loss at the end of each training run."""
    rows = []
    for name, run in trained.items():
        lines, summary = results.metrics(run, "train"), results.read_json(run, "summary.json") or {}
        row = {"run": name, "steps": len(lines) or markup.NOT_RUN}
        for term in ("reconstruction", "perceptual", "kl", "outlier"):
            absent = markup.NOT_RUN if lines.empty else "not in the loss"
            row[f"{term} loss"] = shown(float(lines[term].tail(LAST_STEPS).mean())) if term in lines else absent
        rows.append(
            row | {"clips set aside": summary.get("set_aside", "-"), "s/step": shown(results.seconds_per_step(run))}
        )
    title = f"Terms of the loss, mean of the last {LAST_STEPS} steps (of all, where there are fewer)"
    return table(rows, title, list(trained.values()))
