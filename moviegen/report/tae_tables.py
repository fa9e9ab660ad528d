"""Tables of the Temporal Autoencoder's two pages: published scores beside the measured ones."""

from __future__ import annotations

from typing import Any

import pandas as pd
from IPython.display import HTML

from moviegen.config import Params
from moviegen.report import markup, published, results
from moviegen.report.results import shown
from moviegen.runs import Run

LAST_STEPS = 10
TITLES = {
    "tae-image": "here, inflated only",
    "tae-opl-off": "here, OPL off",
    "tae-opl-on": "here, OPL on",
    "tae-mixkit": "here, OPL off, then fine-tuned on mixkit",
}


def scores(params: Params, evaluation: Run | None, trained: dict[str, Run | None]) -> HTML:
    """PSNR and SSIM on the UCF-101 test split of every autoencoder, beside the published ones."""
    rows = [
        {
            "": "original report, OPL " + ("on" if score.opl else "off"),
            "clip (HxWxT)": "256x256x32",
            "clips": "20% of UCF-101",
            "PSNR (dB)": score.psnr,
            "SSIM": score.ssim,
            "s/step": score.seconds_per_step,
        }
        for score in published.TAE_SCORES
    ]
    for name, title in TITLES.items():
        rows.append(_row(params, title, results.tae_scores(evaluation, "ucf101", name), trained.get(name)))
    title = "Reconstruction of held-out UCF-101 clips; ± is a 95% interval"
    return markup.table(rows, title, [evaluation, *trained.values()])


def mixkit_scores(params: Params, evaluation: Run | None) -> HTML:
    """PSNR and SSIM on the held-out mixkit clips, before and after fine-tuning on mixkit."""
    rows = [
        _row(params, TITLES[name], results.tae_scores(evaluation, "mixkit", name), None)
        for name in ("tae-opl-off", "tae-mixkit")
    ]
    for row in rows:
        del row["s/step"]
    return markup.table(
        rows, "Reconstruction of held-out mixkit clips (the original report shows clips only)", [evaluation]
    )


def terms(trained: dict[str, Run | None]) -> HTML:
    """Each term of the loss at the end of each training run."""
    rows = []
    for name, run in trained.items():
        lines, summary = results.metrics(run, "train"), results.read_json(run, "summary.json") or {}
        row = {"run": name, "steps": len(lines) or markup.NOT_RUN}
        for term in ("reconstruction", "perceptual", "kl", "outlier"):
            row[f"{term} loss"] = (
                shown(float(lines[term].tail(LAST_STEPS).mean())) if term in lines else "not in the loss"
            )
        rows.append(
            row | {"clips set aside": summary.get("set_aside", "-"), "s/step": shown(results.seconds_per_step(run))}
        )
    return markup.table(rows, f"Terms of the loss, mean of the last {LAST_STEPS} steps", list(trained.values()))


def classes(evaluation: Run | None, model: str = "tae-opl-off", most: int = 12) -> HTML:
    """PSNR and SSIM of the worst and best classes of UCF-101."""
    title = f"UCF-101 classes, {TITLES[model].removeprefix('here, ')}"
    listed = results.read_csv(evaluation, "classes.csv")
    if listed is None:
        return markup.missing(title)
    own = listed[(listed["data_set"] == "ucf101") & (listed["model"] == model)].sort_values("psnr")
    if own.empty:
        return markup.missing(title)
    chosen = own if len(own) <= most else pd.concat((own.head(most // 2), own.tail(most // 2)))
    rows = [
        {
            "class": row.label,
            "clips": row.clips,
            "PSNR (dB)": shown(row.psnr, 4) + _plus_minus(row.psnr_ci95),
            "SSIM": shown(row.ssim) + _plus_minus(row.ssim_ci95),
        }
        for row in chosen.itertuples()
    ]
    cut = "" if len(own) <= most else f", the {most // 2} worst and best of {len(own)}"
    return markup.table(rows, title + cut, [evaluation])


def inflation(run: Run | None) -> HTML:
    """What inflating the image autoencoder changed for a single image."""
    measured = results.read_json(run, "inflation.json")
    if measured is None:
        return markup.missing("Image autoencoder and its inflation on one image")
    rows = [
        {
            "on single images": "largest difference between the two reconstructions, in [-1, 1]",
            "value": f"{measured['max_difference']:.2e}",
        },
        {"on single images": "PSNR of the image autoencoder (dB)", "value": shown(measured["psnr_image_vae"], 4)},
    ]
    return markup.table(rows, "The image autoencoder and its inflation", [run])


def _row(params: Params, title: str, scores: dict[str, Any] | None, run: Run | None) -> dict[str, Any]:
    rule = params.tae.evaluation
    return {
        "": title,
        "clip (HxWxT)": f"{rule.size[0]}x{rule.size[1]}x{rule.frames}",
        "clips": scores["clips"] if scores else markup.NOT_RUN,
        "PSNR (dB)": _with_interval(scores, "psnr", 4),
        "SSIM": _with_interval(scores, "ssim", 3),
        "s/step": shown(results.seconds_per_step(run)),
    }


def _with_interval(scores: dict[str, Any] | None, name: str, digits: int) -> str:
    if scores is None:
        return markup.NOT_RUN
    return shown(scores[name], digits) + _plus_minus(scores.get(f"{name}_ci95"))


def _plus_minus(interval: float | str | None) -> str:
    """A CSV has an empty text where a single clip has no interval."""
    return f" ± {float(interval):.2g}" if interval not in (None, "") else ""
