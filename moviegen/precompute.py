"""`python -m moviegen precompute`: the TAE's latents of every clip, at every size the stages see.

On disk: `<frames>x<H>x<W>/<clip>-<hash of its path>.npz` with `latent_mean` and `latent_std` (C, T', H', W') float32,
normalised as the transformer takes them. The view of a clip is its centre frames, resized and centre-cropped.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
from tqdm import tqdm

from moviegen import device, runs
from moviegen.config import Params
from moviegen.data.datasets import Clip
from moviegen.data.prepare import load_split, write_rows
from moviegen.data.videos import centre_view
from moviegen.tae.model import TAE, Encode
from moviegen.tae.weights import load_tae
from moviegen.weights import replace_npz

View = tuple[int, int, int]


def views(params: Params) -> list[View]:
    """(T, H, W) of everything a stage trains on: single frames always, clips where the stage has videos."""
    found = set()
    for recipe in params.recipes.values():
        height, width = recipe.dataset.size
        found |= {(1, height, width), (recipe.dataset.frames, height, width)}
    return sorted(found)


def latent_file(folder: Path, view: View, clip: Clip) -> Path:
    """Where a clip's latent lies in a latents run's folder."""
    place = hashlib.sha256(str(clip.path).encode()).hexdigest()[:8]  # clips of two folders may share a name
    return folder / "x".join(map(str, view)) / f"{clip.path.stem}-{place}.npz"


def load_latent(run: runs.Run, view: View, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (C, T', H', W') each."""
    with np.load(latent_file(run.folder, view, clip), allow_pickle=False) as file:
        return file["latent_mean"], file["latent_std"]


def encode(tae: TAE, clips: list[Clip], view: View) -> Iterator[tuple[Clip, np.ndarray, np.ndarray]]:
    """The normalised latents of clips, one by one."""
    network = Encode(tae)
    for clip in clips:
        video = centre_view(clip.path, clip.frames, *view)
        mean, logvar = network(ms.Tensor(video[None]))
        std = np.exp(0.5 * logvar.asnumpy()) * tae.config.scaling_factor
        yield clip, tae.normalize(mean).asnumpy()[0], std[0]


def precompute(run: runs.Run) -> None:
    """Encodes what is not there yet; a run that was cut goes on where it was."""
    data = run.upstream("data")
    tae = load_tae(run.upstream("tae-video").folder / "tae.safetensors")
    clips = load_split(data, "mixkit_train") + load_split(data, "mixkit_val")
    metrics = runs.MetricsWriter(run.metrics_path)
    total, done, rows = len(views(run.params)) * len(clips), 0, []
    with tqdm(total=total, desc="encoding clips", disable=None) as progress:
        for view in views(run.params):
            missing = [clip for clip in clips if not latent_file(run.folder, view, clip).exists()]
            progress.update(len(clips) - len(missing))
            done += len(clips) - len(missing)
            for clip, mean, std in encode(tae, missing, view):
                replace_npz(latent_file(run.folder, view, clip), latent_mean=mean, latent_std=std)
                progress.update()
                done += 1
                metrics.write(kind="clip", step=done, steps=total, clip=clip.path.name)
            rows += [
                (clip.path.name, *view, latent_file(run.folder, view, clip).relative_to(run.folder)) for clip in clips
            ]
    write_rows(run.folder / "index.csv", ("clip", "frames", "height", "width", "file"), rows)
    shapes = {"x".join(map(str, view)): list(load_latent(run, view, clips[0])[0].shape) for view in views(run.params)}
    runs.write_json(run.folder / "summary.json", {"clips": len(clips), "latents": shapes})


def main(params: Params, options: argparse.Namespace) -> None:
    """`precompute`."""
    device.start(params.seed)
    with runs.record(runs.find(params, "latents")) as run:
        precompute(run)
