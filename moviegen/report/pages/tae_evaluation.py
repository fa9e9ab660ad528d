"""The page of the Temporal Autoencoder's evaluation: published scores beside the measured ones, and reconstructions."""

from __future__ import annotations

from typing import Any

import pandas as pd
from IPython.display import HTML

from moviegen.config import Params
from moviegen.report import markup, media, published, results
from moviegen.report.tables import table
from moviegen.report.wording import shown
from moviegen.runs import Run

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
    return table(rows, title, [evaluation, *trained.values()])


def mixkit_scores(params: Params, evaluation: Run | None) -> HTML:
    """PSNR and SSIM on the held-out mixkit clips, before and after fine-tuning on mixkit."""
    rows = [
        _row(params, TITLES[name], results.tae_scores(evaluation, "mixkit", name), None)
        for name in ("tae-opl-off", "tae-mixkit")
    ]
    for row in rows:
        del row["s/step"]
    return table(rows, "Reconstruction of held-out mixkit clips (the original report shows clips only)", [evaluation])


def classes(evaluation: Run | None, model: str = "tae-opl-off", most: int = 12) -> HTML:
    """PSNR and SSIM of the worst and best classes of UCF-101."""
    title = f"UCF-101 classes, {TITLES[model].removeprefix('here, ')}"
    measured = results.read_csv(evaluation, "classes.csv")
    if measured is None:
        return markup.missing(title)
    ranked = measured[(measured["data_set"] == "ucf101") & (measured["model"] == model)].sort_values("psnr")
    if ranked.empty:
        return markup.missing(title)
    chosen = ranked if len(ranked) <= most else pd.concat((ranked.head(most // 2), ranked.tail(most // 2)))
    rows = [
        {
            "class": row.label,
            "clips": row.clips,
            "PSNR (dB)": shown(row.psnr, 4) + _plus_minus(row.psnr_ci95),
            "SSIM": shown(row.ssim) + _plus_minus(row.ssim_ci95),
        }
        for row in chosen.itertuples()
    ]
    cut = "" if len(ranked) <= most else f", the {most // 2} worst and best of {len(ranked)}"
    return table(rows, title + cut, [evaluation])


def reconstructions(run: Run | None, data_set: str) -> HTML:
    """Originals (left) beside their reconstructions (right): worst, median and best clip of a data set."""
    title = f"Original (left) and reconstruction (right), held-out {data_set} clips"
    clips = results.read_csv(run, "videos.csv")
    if run is None or clips is None or clips[clips["data_set"] == data_set].empty:
        return markup.missing(title)
    players = [
        media.video(
            run.folder / row.file, f"{row.kind}: {row.label}, {row.model}, PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.3f}"
        )
        for row in clips[clips["data_set"] == data_set].itertuples()
    ]
    return markup.card(f'<div class="grid">{"".join(players)}</div>', title, [run])


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
