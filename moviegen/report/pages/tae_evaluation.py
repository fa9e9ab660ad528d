"""The page of the Temporal Autoencoder's evaluation: published scores beside the measured ones, and reconstructions."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML

from moviegen.config import Params
from moviegen.data import videos
from moviegen.data.scores import HIGHEST_PSNR
from moviegen.report import markup, media, provenance, published, results
from moviegen.report.credits import film
from moviegen.report.tables import table
from moviegen.report.wipe import SCRIPT, differences, wipe
from moviegen.report.wording import percent, shown, sides, signed
from moviegen.runs import Run

__all__ = [
    "classes", "film", "mixkit_scores", "outliers", "reconstructions", "rules", "scores", "seams", "wipes",
]  # fmt: skip

TITLES = {
    "tae-image": "here, inflated only",
    "tae-opl-off": "here, OPL off",
    "tae-opl-on": "here, OPL on",
    "start": "came with the repository",
    "tae-mixkit": "here, {}, then fine-tuned on mixkit",
}
IDENTICAL = "identical frames"
ORANGE, YELLOW = np.array([213, 94, 0]), np.array([240, 228, 66])  # of Okabe and Ito's palette, as plots are
GREY = np.array([110, 110, 110])  # of a position at the radius: others within it are darker
BRIGHTEST = 0.99  # quantile of the differences of the worst picture that is drawn brightest
MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
DIGITS = {"psnr": 4, "ssim": 3, "lpips": 3}
INTERVAL = "± is a 95 % interval of the mean over clips, by Student's t over source videos; a single video has none"


def rules(params: Params) -> HTML:
    """What the rule comes to with these parameters."""
    rule, tiling = params.tae.evaluation, params.tae.tiling
    clips = f"at most {rule.max_clips} clips" if rule.max_clips else "all held-out clips"
    every = "every frame" if rule.lpips_interval == 1 else f"one frame in {rule.lpips_interval}"
    perceptual = f"LPIPS is of {every}" if params.tae.loss.lpips_checkpoint else "LPIPS is not measured"
    size = "as wide and high as the clip" if tiling.size is None else f"{sides(tiling.size)} pixels"
    return markup.note(
        f"Here: {clips} of each data set, {rule.frames} frames of {rule.size[0]}x{rule.size[1]} pixels; {perceptual}. "
        f"Where clips are encoded and decoded in tiles (<code>tae.tiling</code>), a tile is {tiling.frames} frames "
        f"long and {size}; decoded ones have {tiling.overlap_frames} frames in common."
    )


def scores(params: Params, evaluation: Run | None, trained: dict[str, Run | None]) -> HTML:
    """PSNR, SSIM and LPIPS on the UCF-101 test split of every autoencoder, beside the published ones."""
    rows = [
        {
            "": "original report, OPL " + ("on" if score.opl else "off"),
            "clip (HxWxT)": published.TAE_CLIP,
            "clips": "20% of UCF-101",
            "source videos": "-",
            "PSNR (dB)": score.psnr,
            "SSIM": score.ssim,
            "LPIPS": "-",
            "s/step": score.seconds_per_step,
        }
        for score in published.TAE_SCORES
    ]
    for name, title in _titles(params).items():
        speed = {"s/step": shown(results.seconds_per_step(trained.get(name)))}
        rows.append(_row(params, evaluation, "ucf101", name, title) | speed)
    difference = _difference(params, evaluation, "ucf101", "tae-opl-on", "here, OPL on minus off, clip by clip")
    rows += [row | {"s/step": "-"} for row in difference]
    return _table(rows, "Reconstruction of held-out UCF-101 clips", [evaluation, *trained.values()])


def mixkit_scores(params: Params, evaluation: Run | None) -> HTML:
    """PSNR, SSIM and LPIPS on the held-out mixkit clips, before and after fine-tuning on mixkit."""
    titles = _titles(params)
    before = "start" if "start" in titles else "tae-opl-off"
    rows = [_row(params, evaluation, "mixkit", name, titles[name]) for name in (before, "tae-mixkit")]
    rows += _difference(params, evaluation, "mixkit", "tae-mixkit", "here, after minus before, clip by clip")
    title = "Reconstruction of held-out mixkit clips (the original report shows clips only)"
    return _table(rows, title, [evaluation])


def classes(evaluation: Run | None, model: str = "tae-opl-off", most: int = 12) -> HTML:
    """PSNR, SSIM and LPIPS of the worst and best classes of UCF-101."""
    title = f"UCF-101 classes, {TITLES[model].removeprefix('here, ')}"
    measured = results.read_csv(evaluation, "classes.csv")
    if measured is None:
        return markup.missing(title)
    ranked = measured[(measured["data_set"] == "ucf101") & (measured["model"] == model)].sort_values("psnr")
    if ranked.empty:
        return markup.missing(title)
    chosen = ranked if len(ranked) <= most else pd.concat((ranked.head(most // 2), ranked.tail(most // 2)))
    rows = [{"class": row["label"]} | _measured(row) for row in chosen.to_dict("records")]
    cut = "" if len(ranked) <= most else f", the {most // 2} worst and best of {len(ranked)}"
    return _table(rows, title + cut, [evaluation])


def reconstructions(run: Run | None, data_set: str) -> HTML:
    """Originals (left) beside their reconstructions (right): worst, median and best clip of a data set."""
    title = f"Original (left) and reconstruction (right), held-out {data_set} clips"
    clips = results.read_csv(run, "videos.csv")
    if run is None or clips is None or clips[clips["data_set"] == data_set].empty:
        return markup.missing(title)
    players = [
        media.video(
            run.folder / row.file,
            f"{row.kind}: {row.label}, {row.model}, PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.3f}{_lpips_of(row.lpips)}",
        )
        for row in clips[clips["data_set"] == data_set].itertuples()
    ]
    return markup.card(f'<div class="grid">{"".join(players)}</div>', title, [run])


def wipes(run: Run | None, data_set: str) -> HTML:
    """The middle frame of the same clips: original and reconstruction under a slider, and where they differ."""
    title = f"Original against reconstruction, the middle frame of held-out {data_set} clips"
    listed = results.read_csv(run, "videos.csv")
    if run is None or listed is None or listed[listed["data_set"] == data_set].empty:
        return markup.missing(title)
    chosen = listed[listed["data_set"] == data_set].to_dict("records")
    middle = run.params.tae.evaluation.frames // 2
    frames = [videos.read_frames(run.folder / row["file"], [middle])[0] for row in chosen]
    pairs = [(frame[:, : frame.shape[1] // 2], frame[:, frame.shape[1] // 2 :]) for frame in frames]
    scale = max(1.0, *(float(np.quantile(differences(*pair), BRIGHTEST)) for pair in pairs))
    shown_pairs = "".join(
        wipe(*pair, ("original", "reconstruction"), f"{row['kind']}: {row['label']}, {row['model']}", scale)
        for pair, row in zip(pairs, chosen, strict=True)
    )
    notes = (
        f"{title}; the difference is black for none, brightest from {scale:.0f} of 255 grey levels on, and of the "
        f"compressed videos below, so a little of it is their codec's"
    )
    return markup.card(f'<div class="wipes">{shown_pairs}</div>{SCRIPT}', notes, [run])


def outliers(run: Run | None) -> HTML:
    """A frame of a few clips, and which positions of its latents stand out, without and with the outlier penalty."""
    title = "Positions that stand out of their latent frame"
    listed = results.read_csv(run, "outliers.csv")
    if run is None or listed is None or listed.empty:
        return markup.missing(title)
    radius, height = run.params.tae.loss.outlier_radius, run.params.tae.evaluation.size[0]
    kept = [
        (row["label"], results.read_npz(run.folder / row["file"], "frame", "off", "on"))
        for row in listed.to_dict("records")
    ]
    largest = max(float(maps.max()) for _, (_, *both) in kept for maps in both)
    tiles = []
    for label, (frame, *both) in kept:
        tiles.append(media.tile(frame, label, f"{label}, a frame from the middle"))
        for name, maps in zip(("off", "on"), both, strict=True):
            beyond = int((maps > radius).sum())
            said = f"OPL {name}: {beyond} of {maps.size} ({percent(beyond / maps.size)}), at most {maps.max():.2f}"
            image = outlier_map(maps[len(maps) // 2], radius, largest)
            tiles.append(
                media.clip(media.picture(image, f"{label}, outliers with OPL {name}", height), html.escape(said))
            )
    ramps = {f"within {radius:g}": (0.0, radius)}
    if largest > radius:
        ramps[f"beyond, up to {largest:.2f}"] = (float(np.nextafter(radius, np.inf)), largest)
    key = "".join(
        f"<span>{media.picture(outlier_map(np.linspace(*ends, 64)[None].repeat(8, 0), radius, largest), '', 8)}"
        f"{name} standard deviations</span>"
        for name, ends in ramps.items()
    )
    title = (
        f"{title}: how far from the frame's mean, in its standard deviations. The outlier penalty (OPL) counts those "
        f"beyond r = {radius:g}. Latent means of held-out UCF-101 clips; the numbers are of all latent frames of the "
        f"clip, the map of one from the middle"
    )
    return markup.card(f'<div class="key">{key}</div><div class="outliers">{"".join(tiles)}</div>', title, [run])


def outlier_map(deviations: np.ndarray, radius: float, largest: float) -> np.ndarray:
    """Deviations (H', W') as a picture, uint8 (H', W', 3): up to the radius grey, beyond it orange to yellow."""
    within = (deviations / radius).clip(0, 1)[..., None] * GREY
    beyond = ((deviations - radius) / max(largest - radius, 1e-6)).clip(0, 1)[..., None]
    bright = (1 - beyond) * ORANGE + beyond * YELLOW
    return np.where(deviations[..., None] > radius, bright, within).round().astype(np.uint8)


def seams(evaluation: Run | None) -> HTML:
    """PSNR of reconstructions in tiles against those of whole frames, and of both against the originals, by size."""
    title = "Reconstruction in tiles, against that of whole frames and against the original; means over the same clips"
    measured = results.read_csv(evaluation, "tiles.csv")
    if measured is None:
        return markup.missing(title)
    rows = [
        {
            "tile (HxW)": f"{row['height']}x{row['width']}" + (", the whole frame" if row["tiles"] == 1 else ""),
            "overlap (pixels)": row["overlap"] if row["tiles"] > 1 else "-",
            "tiles a frame": row["tiles"],
            "clips": row["clips"],
            "PSNR against the whole (dB)": "-" if _lacks(row["whole"]) else shown(float(row["whole"]), 4),
            "PSNR against the original (dB)": shown(row["original"], 4),
        }
        for row in measured.to_dict("records")
    ]
    return table(rows, title, [evaluation])


def _titles(params: Params) -> dict[str, str]:
    """The models of these parameters, by the program that made them or `start`."""
    start = params.tae.start_checkpoint
    titles = {name: title for name, title in TITLES.items() if start or name != "start"}
    return titles | {"tae-mixkit": titles["tae-mixkit"].format("that one" if start else "OPL off")}


def _table(rows: list[dict[str, Any]], title: str, runs: list[Run | None]) -> HTML:
    """Identical frames have a column where there are any."""
    notes = [title, INTERVAL]
    if any(row.get(IDENTICAL) for row in rows):
        rows = [{**row, IDENTICAL: row.get(IDENTICAL, "-")} for row in rows]
        notes.append(f"a frame equal to the last bit counts as {HIGHEST_PSNR:.1f} dB, the most that 8-bit frames show")
    else:
        rows = [{name: value for name, value in row.items() if name != IDENTICAL} for row in rows]
    return table(rows, "; ".join(notes), runs)


def _row(params: Params, evaluation: Run | None, data_set: str, model: str, title: str) -> dict[str, Any]:
    row, scores = {"": title, "clip (HxWxT)": _rule(params)}, results.tae_scores(evaluation, data_set, model)
    if scores is None:
        columns = ("clips", "source videos", *MEASURES.values())
        return row | dict.fromkeys(columns, provenance.why_absent(params, "tae-evaluation", evaluation))
    return row | _measured(scores)


def _difference(params: Params, evaluation: Run | None, data_set: str, model: str, title: str) -> list[dict[str, Any]]:
    """A row for a model minus its baseline; none where either was not scored."""
    minus = (results.tae_scores(evaluation, data_set, model) or {}).get("minus")
    if minus is None:
        return []
    counts = {"clips": minus["clips"], "source videos": minus["sources"]}
    measured = {
        column: "-" if minus[name] is None else signed(minus[name], 2) + _plus_minus(minus[f"{name}_ci95"])
        for name, column in MEASURES.items()
    }
    return [{"": title, "clip (HxWxT)": _rule(params)} | counts | measured]


def _rule(params: Params) -> str:
    rule = params.tae.evaluation
    return sides((*rule.size, rule.frames))


def _measured(scores: dict[str, Any]) -> dict[str, Any]:
    """The cells of what `evaluate_tae.aggregate` found, from its JSON or its CSV."""
    measured = {
        column: "-" if _lacks(scores[name]) else shown(scores[name], DIGITS[name]) + _plus_minus(scores[f"{name}_ci95"])
        for name, column in MEASURES.items()
    }
    return {"clips": scores["clips"], "source videos": scores["sources"], **measured, IDENTICAL: scores["identical"]}


def _lacks(score: float | str | None) -> bool:
    """Whether a measure was not taken; a CSV has an empty text then."""
    return score in (None, "")


def _lpips_of(score: float | str) -> str:
    return "" if _lacks(score) else f", LPIPS {float(score):.3f}"


def _plus_minus(interval: float | str | None) -> str:
    """A CSV has an empty text where a single video has no interval."""
    return f" ± {float(interval):.2g}" if interval not in (None, "") else ""
