"""`python -m moviegen tae evaluate`: PSNR and SSIM on the UCF-101 test split, before and after training on video.

The clip rule is fixed: the centre `frames` frames of every test clip, resized and centre-cropped to `size`. Frames are
compared as 8-bit images; a clip's score is the mean over its frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore as ms
import numpy as np
import pandas as pd
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from moviegen import device, runs
from moviegen.config import Params
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split
from moviegen.data.videos import centre_view, to_uint8, write_video
from moviegen.tae.model import Reconstruct
from moviegen.tae.weights import inflate, load_tae

SCORES = ("psnr_before", "ssim_before", "psnr_after", "ssim_after")
FPS = 12
IDENTICAL = 100.0  # dB, for a frame equal to the last bit, whose PSNR is infinite


def scores(original: np.ndarray, restored: np.ndarray) -> tuple[float, float]:
    """PSNR (dB) and SSIM of two clips, uint8 (T, H, W, 3)."""
    pairs = list(zip(original, restored, strict=True))
    psnr = [IDENTICAL if (a == b).all() else peak_signal_noise_ratio(a, b) for a, b in pairs]
    ssim = [structural_similarity(a, b, channel_axis=-1) for a, b in pairs]
    return float(np.mean(psnr)), float(np.mean(ssim))


def interval95(values: pd.Series) -> float | None:
    """Half the width of the mean's 95 % interval, from a normal approximation; None for a single value."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def view(params: Params, clip: Clip) -> np.ndarray:
    """A test clip under the fixed rule: float32 (3, T, H, W) in [-1, 1]."""
    return centre_view(clip.path, clip.frames, params.tae.evaluation.frames, *params.tae.evaluation.size)


def evaluate(run: runs.Run) -> None:
    """Scores every test clip and keeps the best, median and worst as videos."""
    params = run.params
    clips = load_split(run.upstream("data"), "ucf101_test")[: params.tae.evaluation.max_clips or None]
    before = Reconstruct(inflate(run.upstream("tae-image").folder / "tae.safetensors", params.tae.model))
    after = Reconstruct(load_tae(run.upstream("tae-video").folder / "tae.safetensors"))
    metrics, rows = runs.MetricsWriter(run.metrics_path), []
    metrics.drop_after(0)
    for index, clip in enumerate(tqdm(clips, desc="evaluating", disable=None)):
        video = view(params, clip)
        original = to_uint8(video)
        values: list[float] = []
        for network in (before, after):
            values += scores(original, to_uint8(network(ms.Tensor(video[None])).asnumpy()[0]))
        row = {"clip": clip.path.name, "label": clip.label, **dict(zip(SCORES, values, strict=True))}
        rows.append(row)
        metrics.write(kind="clip", step=index + 1, steps=len(clips), **row)
    table = pd.DataFrame(rows)
    runs.write_text(run.folder / "scores.csv", table.to_csv(index=False))
    means = {name: float(table[name].mean()) for name in SCORES}
    widths = {f"{name}_ci95": interval95(table[name]) for name in SCORES}
    runs.write_json(run.folder / "summary.json", {"clips": len(table), **means, **widths})
    keep_examples(run, table, clips, after)


def keep_examples(run: runs.Run, table: pd.DataFrame, clips: list[Clip], network: Reconstruct) -> None:
    """Writes the best, median and worst clip, original left and reconstruction right."""
    order = table["psnr_after"].sort_values().index
    examples = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    rows = []
    for kind, index in examples.items():
        video = view(run.params, clips[index])
        restored = network(ms.Tensor(video[None])).asnumpy()[0]
        file = Path("videos") / f"{kind}.mp4"
        write_video(run.folder / file, np.concatenate((to_uint8(video), to_uint8(restored)), axis=2), FPS)
        rows.append({"file": file, "kind": kind, **table.loc[index, ["clip", "label", "psnr_after"]]})
    runs.write_text(run.folder / "videos.csv", pd.DataFrame(rows).to_csv(index=False))


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae evaluate`."""
    device.start(params.seed)
    with runs.record(runs.find(params, "tae-evaluation")) as run:
        evaluate(run)
