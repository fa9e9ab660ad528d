"""The page of the Temporal Autoencoder's training: its drawing, what inflation changed, losses and their terms."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen.config import TAE_PHASES, Params, TAEConfig, latent_size
from moviegen.config.shapes import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from moviegen.report import markup, provenance, published, results
from moviegen.report.credits import shipped_autoencoders, used_weights
from moviegen.report.curves import losses
from moviegen.report.diagrams import GREY, PALE, WARM, box, sheet
from moviegen.report.pages.tae_training_convolution import convolution
from moviegen.report.plots import INK, drawn, styled
from moviegen.report.tables import table
from moviegen.report.wording import listed, shown, sides
from moviegen.runs import Run, registry

__all__ = [
    "compression", "convolution", "diagram", "hyperparameters", "inflation", "losses", "shipped_autoencoders", "terms",
    "used_weights",
]  # fmt: skip

LAST_STEPS = 10
RUNS = {"tae-image": "images", "tae-opl-off": "OPL off", "tae-opl-on": "OPL on", "tae-mixkit": "mixkit"}
PHASES = {"image": "single frames", "opl-off": "OPL off", "opl-on": "OPL on", "mixkit": "mixkit"}


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
        return drawn(
            figure,
            "The Temporal Autoencoder of this recipe; every convolution is a Conv2.5D",
            alt="Boxes from left to right: a video, the encoder's levels, each lower than the one before, the latent, "
            "the decoder's levels in the opposite order, a video. Each level names its channels.",
        )


def compression(params: Params) -> HTML:
    """How much smaller latents are, by an example of this recipe."""
    stage, channels = params.tae.video, params.tae.model.latent_channels
    clip, latent = (stage.frames, *stage.size), latent_size(stage.frames, *stage.size)
    return markup.prose(
        f"Time becomes {TEMPORAL_COMPRESSION} times shorter, height and width {SPATIAL_COMPRESSION} times smaller. A "
        f"clip of {sides(clip)} pixels in three colours becomes {sides(latent)} latents of {channels} channels, and "
        f"comes back as {TEMPORAL_COMPRESSION * latent[0]} frames; those beyond the clip's own would be dropped. "
        f"The original report takes 16 channels, where OpenSora's and SDXL's autoencoders have 4, as both "
        "reconstruction and generation gain by them."
    )


def hyperparameters(params: Params) -> HTML:
    """Those of every run of this page, beside the original report's."""
    columns = {title: _hyperparameters(params, phase) for phase, title in PHASES.items()}
    rows = [
        {"hyper-parameter": name, "original report": published.TAE_HYPERPARAMETERS.get(name, "-")}
        | {title: values[name] for title, values in columns.items()}
        for name in columns[PHASES["mixkit"]]
    ]
    title = "Hyper-parameters of the autoencoder's training: the original report's, and those of recipe"
    return table(rows, f"{title} {params.scale}")


def _hyperparameters(params: Params, phase: str) -> dict[str, object]:
    """Of a phase; a term that it has not has a dash."""
    loss, group = params.tae.loss, TAE_PHASES[phase]
    if phase == "image" and params.tae.vae_checkpoint:
        return {**dict.fromkeys(_hyperparameters(params, "mixkit"), "-"), "steps": "none: its weights are given"}
    stage = getattr(params.tae, group)
    rate, optimizer, has_penalty = stage.lr_scheduler, stage.optimizer, phase == "opl-on"
    seen = f", of {loss.perceptual_frames} frames of a clip" if loss.perceptual_frames and stage.frames > 1 else ""
    return {
        "workers": params.launch_of_phase(group).worker_num,
        "batch": stage.batch_size,
        "clip (HxWxT)": f"{sides(stage.size)}x{stage.frames}",
        "share of steps on single frames": f"{stage.image_ratio:g}" if stage.frames > 1 else "1",
        "steps": f"{stage.steps:,}",
        "micro-batches a step": stage.settings.gradient_accumulation_steps,
        "arithmetic": stage.settings.dtype,
        "weight of the reconstruction": f"{loss.reconstruction:g}",
        "weight of LPIPS": f"{loss.perceptual:g}{seen}" if loss.lpips_checkpoint else "left out",
        "weight of the KL divergence": f"{loss.kl:g}",
        "weight of the outlier penalty": f"{loss.outlier:g}" if has_penalty else "-",
        "r of the outlier penalty": f"{loss.outlier_radius:g}" if has_penalty else "-",
        "optimizer": "AdamW",
        "its betas, epsilon, weight decay": f"{listed(optimizer.betas)}, {optimizer.eps:g}, {optimizer.weight_decay:g}",
        "learning rate": f"{rate.lr:g}",
        "warm-up": f"{rate.warmup_steps:,} steps",
        "on a plateau": f"rate times {rate.factor:g} after {rate.patience} validations without improvement",
        "steps between two validations": stage.validation_interval,
        "gradient clipped to": f"{stage.clip_norm:g}",
        "average of the weights": f"decay {stage.ema.decay:g}" if stage.ema else "none",
    }


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


def terms(params: Params, trained: dict[str, Run | None]) -> HTML:
    """Each term of the loss at the end of each training run."""
    rows = []
    for name, run in trained.items():
        lines, summary = results.metrics(run, "train"), results.read_json(run, "summary.json") or {}
        not_there = (
            "its weights are given" if registry.adopted(params, name) else provenance.why_absent(params, name, run)
        )
        row = {"run": RUNS[name], "steps": len(lines) or not_there}
        for term in ("reconstruction", "perceptual", "kl", "outlier"):
            absent = not_there if lines.empty else "not in the loss"
            row[f"{term} loss"] = shown(float(lines[term].tail(LAST_STEPS).mean())) if term in lines else absent
        rows.append(
            row | {"clips set aside": summary.get("set_aside", "-"), "s/step": shown(results.seconds_per_step(run))}
        )
    title = f"Terms of the loss, mean of the last {LAST_STEPS} steps (of all, where there are fewer)"
    return table(rows, title, list(trained.values()))
