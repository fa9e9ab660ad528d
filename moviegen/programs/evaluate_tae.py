"""`python -m moviegen tae evaluate`: PSNR, SSIM and LPIPS of every autoencoder of the report on the held-out clips.

The clip rule is fixed: the centre `frames` frames of every held-out clip, resized and centre-cropped to `size`, latent
means instead of samples. Frames are compared as 8-bit images (`data.scores`); a clip's score is the mean over its
frames, of LPIPS over every `lpips_interval`-th of them, and a file counts once, however many captions it has. The same
clips give the same numbers, to the last digit.

    scores.csv      a row a clip and model        classes.csv     a row a class and model
    summary.json    means over clips              videos.csv      original beside reconstruction: worst, median, best
    scores/         a clip's rows, of all models: a clip that has them is not scored again
    tiles.csv       what cutting frames into tiles changes, by the tiles' size
    outliers.csv    a few clips; in outliers/ a frame of each, and which positions of its latents stand out, with and
                    without the outlier penalty

Intervals are of 95 %, by Student's t over source videos (`data.intervals`). Models are compared clip by clip: scores
differ far more from clip to clip than from model to model, and the former cancels in the difference.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pandas as pd
from tqdm import tqdm

from moviegen import runs
from moviegen.config import (
    SPATIAL_COMPRESSION,
    TEMPORAL_COMPRESSION,
    ConfigError,
    Params,
    Tiling,
    latent_size,
    weights_file,
)
from moviegen.data.clips import SHOWN_FPS, Clip
from moviegen.data.crops import centre_view, spread
from moviegen.data.intervals import mean_and_half_width
from moviegen.data.pixels import to_uint8
from moviegen.data.quarantine import Quarantine
from moviegen.data.scores import MEASURES, psnr, score
from moviegen.data.splits import data_folder, load_split
from moviegen.data.videos import BrokenVideo, write_video
from moviegen.device.collectives import barrier
from moviegen.device.limits import cores
from moviegen.device.world import World
from moviegen.launch.pool import SPAWN
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import read_json, write_csv, write_json, write_text
from moviegen.runs.patience import Patience
from moviegen.runs.ranks import recorded
from moviegen.runs.weights import to_arrays
from moviegen.tae.lpips import frame_distance
from moviegen.tae.model import TAE, Decode, Encode, Reconstruct
from moviegen.tae.outliers import deviations
from moviegen.tae.tiling import decode_tiles, encode_tiles
from moviegen.tae.weights import load_weights

# What is scored, by the program that made it, or START: an image autoencoder is inflated, the others are as they were
# trained.
MODELS = ("tae-image", "tae-opl-off", "tae-opl-on", "start", "tae-mixkit")
START = "start"  # the trained one that a parameter names for the last to be fine-tuned from
SPLITS = {"ucf101": "ucf101_test", "mixkit": "mixkit_val"}
# Which model each is compared with: the first of these that is there.
BASELINES = {"tae-opl-on": ("tae-opl-off",), "tae-mixkit": (START, "tae-opl-off")}
SHOWN = {"ucf101": "tae-opl-off", "mixkit": "tae-mixkit"}  # whose reconstructions are kept as videos
PENALISED = {"off": "tae-opl-off", "on": "tae-opl-on"}  # whose latents are compared, by the outlier penalty
OUTLIER_CLIPS = 3
AT_ONCE = 8  # clips that are in memory while the models take turns: the weights change as rarely as they may
TILE_SHARES = (0.75, 0.5, 0.25)  # of a frame's sides, of tiles that are compared with whole frames
OVERLAP_SHARE = 0.25  # of a tile's shorter side
TILED_CLIPS = 3
SOURCE = ["data_set", "label", "group"]  # which video a clip was cut from


def means(table: pd.DataFrame) -> dict[str, Any]:
    """Of a row a clip: how many clips of how many source videos, and each measure's mean and interval's half width.

    Of a measure that was not taken: None.
    """
    sources = table.groupby(SOURCE).ngroup()
    result: dict[str, Any] = {"clips": len(table), "sources": sources.nunique()}
    for measure in MEASURES:
        is_measured = table[measure].notna().all()
        measured = mean_and_half_width(table[measure], sources) if is_measured else (None, None)
        result[measure], result[f"{measure}_ci95"] = measured
    return result


def aggregate(table: pd.DataFrame) -> dict[str, Any]:
    """`means` of one model's clips, and how many of their frames are identical."""
    return means(table) | {"identical": int(table["identical"].sum())}


def difference(table: pd.DataFrame, model: str, baseline: str) -> dict[str, Any]:
    """`means` of a model's scores minus a baseline's, clip by clip."""
    scored, reference = (table[table["model"] == name] for name in (model, baseline))
    pairs = scored.merge(reference, on=[*SOURCE, "clip"], suffixes=("", "_of_baseline"), validate="one_to_one")
    for measure in MEASURES:
        pairs[measure] -= pairs[f"{measure}_of_baseline"]
    return {"model": baseline} | means(pairs)


def view(params: Params, clip: Clip) -> np.ndarray:
    """A held-out clip under the fixed rule: float32 (3, T, H, W) in [-1, 1]."""
    return centre_view(clip, params.tae.evaluation.frames, *params.tae.evaluation.size)


def restore(network: Reconstruct, video: np.ndarray) -> np.ndarray:
    """The reconstruction of a (3, T, H, W), as uint8 (T, H, W, 3)."""
    return to_uint8(network(ms.Tensor(video[None])).asnumpy()[0])


def chosen_clips(run: runs.Run) -> list[tuple[str, Clip]]:
    """The held-out clips of each data set, a file once."""
    data, most = run.upstream("data"), run.params.tae.evaluation.max_clips
    chosen = []
    for data_set, split in SPLITS.items():
        files = list({clip.path: clip for clip in load_split(data, split)}.values())
        chosen += [(data_set, clip) for clip in spread(files, most or len(files))]
    return chosen


def models_of(run: runs.Run) -> list[str]:
    """Those that these parameters have, in the order of MODELS."""
    there = {*run.program.needs(run.params), *([START] if run.params.tae.start_checkpoint else [])}
    return [name for name in MODELS if name in there]


def weights_of(run: runs.Run, model: str) -> Path:
    """The file of a model's weights."""
    if model == START:
        return weights_file("tae.start_checkpoint", run.params.tae.start_checkpoint)
    return run.upstream(model).folder / "tae.safetensors"


class Models:
    """The models' weights, for one network in turn, so that it is compiled once.

    An image autoencoder leaves the temporal layers as they are, and is read first: those of a new TAE change nothing.
    """

    def __init__(self, run: runs.Run) -> None:
        self.tae, self.weights = TAE(run.params.tae.model), {}
        for model in models_of(run):
            load_weights(self.tae, weights_of(run, model))
            self.weights[model] = to_arrays(dict(self.tae.parameters_and_names()))
        self.network = Reconstruct(self.tae)

    def take(self, model: str) -> TAE:
        """The network with a model's weights."""
        for name, parameter in self.tae.parameters_and_names():
            parameter.set_data(ms.Tensor(self.weights[model][name]))
        return self.tae

    def restored(self, model: str, videos: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """What a model makes of each video (3, T, H, W): uint8 (T, H, W, 3)."""
        self.take(model)
        return (restore(self.network, video) for video in videos)


@contextmanager
def scoring() -> Iterator[Callable[[np.ndarray, np.ndarray], Future[dict[str, float | None]]]]:
    """`score` of two clips by worker processes, while the network computes."""
    with ProcessPoolExecutor(max(1, int(cores()) - 1), mp_context=SPAWN) as pool:
        yield lambda original, restored: pool.submit(score, original, restored)


def score_file(run: runs.Run, place: int) -> Path:
    """Where a run keeps what all models score on the clip at a place of `chosen_clips`, or why it cannot be read."""
    return run.folder / "scores" / f"{place:05d}.json"


def score_share(run: runs.Run, world: World, models: Models, clips: list[tuple[str, Clip]], todo: list[int]) -> None:
    """Scores all models on this rank's clips, each decoded once; some clips at a time, as a model takes its turn.

    Raises:
        ConfigError: all would take longer than `data.patience_hours`.
    """
    perceptual = frame_distance(run.params)
    share, names = todo[world.rank :: world.size], list(models.weights)
    metrics = runs.MetricsWriter(run.metrics_path) if world.is_main else None
    total, longest = len(share) * len(names), max(Counter(data_set for data_set, _ in clips).values())
    done, patience = itertools.count(1), Patience(
        run.params, "evaluating", ["clip"] * total, longest, parameter="tae.evaluation.max_clips"
    )  # fmt: skip
    with scoring() as scored, tqdm(total=total, desc="evaluating", disable=None if world.is_main else True) as bar:

        def finish(waiting: list[tuple[int, dict[str, dict[str, Any]], dict[str, Future]]]) -> None:
            for place, rows, scores in waiting:
                for model, row in rows.items():
                    row |= {name: value for name, value in scores[model].result().items() if name != "lpips"}
                write_json(score_file(run, place), {"rows": list(rows.values())})
                for row in rows.values():
                    bar.update()
                    if metrics:
                        metrics.write(kind="clip", step=next(done), steps=total, **row)
                    patience.done("clip")

        waiting: list[tuple[int, dict[str, dict[str, Any]], dict[str, Future]]] = []
        for first in range(0, len(share), AT_ONCE):
            views = sound_views(run, clips, share[first : first + AT_ONCE])
            computed: dict[int, tuple[dict[str, dict[str, Any]], dict[str, Future]]] = {
                place: ({}, {}) for place in views
            }
            for model in names:
                restored = models.restored(model, views.values())
                for place, (rows, scores) in computed.items():
                    data_set, clip = clips[place]
                    original = to_uint8(views[place])
                    try:
                        again = next(restored)
                    except ConfigError as error:
                        raise ConfigError(f"{model}, {clip.path}: {error}") from error
                    scores[model] = scored(original, again)
                    distance = perceptual(original, again) if perceptual else None
                    rows[model] = {**source_of(run, data_set, clip), "model": model, "lpips": distance}
            finish(waiting)
            waiting = [(place, *both) for place, both in computed.items()]
        finish(waiting)


def sound_views(run: runs.Run, clips: list[tuple[str, Clip]], places: list[int]) -> dict[int, np.ndarray]:
    """The views of the clips at some places; of those that cannot be read it is written why."""
    views = {}
    for place in places:
        _, clip = clips[place]
        try:
            views[place] = view(run.params, clip)
        except BrokenVideo as error:
            write_json(score_file(run, place), {"rows": [], "reason": error.reason})
    return views


def source_of(run: runs.Run, data_set: str, clip: Clip) -> dict[str, Any]:
    """What a row says of its clip."""
    place = os.path.relpath(clip.path, data_folder(run.params))
    return {"data_set": data_set, "clip": place, "label": clip.label, "group": clip.group}


def joined_rows(run: runs.Run, clips: list[tuple[str, Clip]]) -> tuple[pd.DataFrame, dict[str, list[Clip]]]:
    """A row a clip and model, of all ranks, and the clips of each data set that could be read.

    Raises:
        ConfigError: none can be read.
    """
    quarantine, rows = Quarantine(run.folder / "quarantine.csv"), []
    sound: dict[str, list[Clip]] = {data_set: [] for data_set in SPLITS}
    for place, (data_set, clip) in enumerate(clips):
        found = read_json(score_file(run, place), "remove it and evaluate again")
        rows += found["rows"]
        if found["rows"]:
            sound[data_set].append(clip)
        elif clip not in quarantine:
            quarantine.add(clip, found["reason"])
    if not rows:
        raise ConfigError(f"no held-out clip can be read: {quarantine.path} says why; mend or replace the files")
    return pd.DataFrame(rows)[["data_set", "clip", "label", "group", "model", *MEASURES, "identical"]], sound


def summarise(run: runs.Run, table: pd.DataFrame) -> None:
    """Writes the tables: every clip, every class, every data set."""
    write_text(run.folder / "scores.csv", table.to_csv(index=False))
    classes = [
        dict(zip(("data_set", "label", "model"), key, strict=True)) | aggregate(part)
        for key, part in table.groupby(["data_set", "label", "model"], sort=True)
    ]
    write_text(run.folder / "classes.csv", pd.DataFrame(classes).to_csv(index=False))
    summary: dict[str, dict[str, Any]] = {
        data_set: {model: aggregate(part) for model, part in rows.groupby("model", sort=False)}
        for data_set, rows in table.groupby("data_set", sort=False)
    }
    for data_set, models in summary.items():
        for model, baselines in BASELINES.items():
            baseline = next((name for name in baselines if name in models), None)
            if model in models and baseline:
                models[model]["minus"] = difference(table[table["data_set"] == data_set], model, baseline)
    write_json(run.folder / "summary.json", summary)


def keep_examples(run: runs.Run, models: Models, clips: dict[str, list[Clip]], table: pd.DataFrame) -> None:
    """Writes the worst, median and best clip of each data set, original left and reconstruction right."""
    rows = []
    for data_set, model in SHOWN.items():
        model = model if model in set(table["model"]) else MODELS[-1]
        scored = table[(table["data_set"] == data_set) & (table["model"] == model)].reset_index(drop=True)
        if scored.empty:
            continue
        order = scored["psnr"].sort_values(kind="stable").index
        for kind, index in {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}.items():
            clip = clips[data_set][index]
            video = view(run.params, clip)
            pair = np.concatenate((to_uint8(video), *models.restored(model, [video])), axis=2)
            file = Path("videos") / f"{data_set}-{kind}.mp4"
            write_video(run.folder / file, pair, clip.fps or SHOWN_FPS)
            rows.append({"file": file, "kind": kind, **scored.loc[index]})
    write_text(run.folder / "videos.csv", pd.DataFrame(rows).to_csv(index=False))


def keep_outliers(run: runs.Run, models: Models, clips: list[Clip]) -> None:
    """Writes which positions of a few clips' latents stand out, by the models without and with the outlier penalty."""
    if not models.weights.keys() >= set(PENALISED.values()):
        return
    chosen = spread(clips, OUTLIER_CLIPS)
    videos, encode = [view(run.params, clip) for clip in chosen], Encode(models.tae)
    found: list[dict[str, np.ndarray]] = [{} for _ in chosen]
    for name, model in PENALISED.items():
        models.take(model)
        for video, maps in zip(videos, found, strict=True):
            maps[name] = deviations(encode(ms.Tensor(video[None]))[0].asnumpy()[0])
    rows = []
    for number, (clip, video, maps) in enumerate(zip(chosen, videos, found, strict=True)):
        file, frames = Path("outliers") / f"{number:02d}.npz", to_uint8(video)
        save_npz(run.folder / file, frame=frames[len(frames) // 2], **maps)
        rows.append((file, clip.label, source_of(run, "ucf101", clip)["clip"]))
    write_csv(run.folder / "outliers.csv", ("file", "label", "clip"), rows)


class Tiled:
    """Encodes to the mean and decodes again in tiles."""

    def __init__(self, tae: TAE) -> None:
        self.encode, self.decode = Encode(tae), Decode(tae)

    def __call__(self, video: np.ndarray, tiling: Tiling) -> np.ndarray:
        """The reconstruction of a (3, T, H, W), as uint8 (T, H, W, 3)."""
        _, frames, *size = video.shape
        windows = [functools.partial(_part, video[:, slice(*span)]) for span in tiling.encoded(frames)]
        means = [mean for mean, _ in encode_tiles(self.encode, windows, (size[0], size[1]), tiling)]
        pieces = decode_tiles(self.decode, np.concatenate(means, 2), frames, tiling)
        return np.concatenate([to_uint8(piece[0]) for piece in pieces])


def _part(window: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return window[None, :, :, rows, columns]


def tilings(frames: int, size: tuple[int, int]) -> list[Tiling]:
    """Tiles of a frame, the largest first, each without an overlap and with one; in time a clip stays whole.

    Where the last tile, which lies further back, shares as much without being asked to, the two are one.
    """
    unit, whole = SPATIAL_COMPRESSION, -(-frames // TEMPORAL_COMPRESSION) * TEMPORAL_COMPRESSION
    found = []
    for share in TILE_SHARES:
        tile = (max(unit, int(share * size[0]) // unit * unit), max(unit, int(share * size[1]) // unit * unit))
        overlap = int(OVERLAP_SHARE * min(tile)) // unit * unit
        found += [Tiling(frames=whole, overlap_frames=0, size=tile, overlap=each) for each in sorted({0, overlap})]
    return list({str(tiling.cut(*latent_size(1, *size)[1:])): tiling for tiling in found}.values())


def score_tiles(run: runs.Run, models: Models, clips: dict[str, list[Clip]]) -> None:
    """Writes how near the last model's reconstructions in tiles are to those of whole frames, and to the originals."""
    videos = [view(run.params, clip) for clip in spread(clips["mixkit"] or clips["ucf101"], TILED_CLIPS)]
    originals, wholes = [to_uint8(video) for video in videos], list(models.restored(MODELS[-1], videos))
    settings, tiled = run.params.tae.evaluation, Tiled(models.tae)
    rows: list[tuple[object, ...]] = [(*settings.size, 0, 1, len(videos), "", _mean_psnr(originals, wholes))]
    for tiling in tqdm(tilings(settings.frames, settings.size), "tiles", disable=None):
        found = [tiled(video, tiling) for video in videos]
        cut = (*(tiling.size or settings.size), tiling.overlap, tiling.tiles(*settings.size), len(videos))
        rows.append((*cut, _mean_psnr(wholes, found), _mean_psnr(originals, found)))
    write_csv(run.folder / "tiles.csv", ("height", "width", "overlap", "tiles", "clips", "whole", "original"), rows)


def _mean_psnr(originals: list[np.ndarray], restored: list[np.ndarray]) -> float:
    return float(np.mean([psnr(*pair).mean() for pair in zip(originals, restored, strict=True)]))


def evaluate(run: runs.Run, world: World) -> None:
    """Scores every model on every held-out clip; ranks take clips in turn, and rank 0 joins their rows."""
    clips = chosen_clips(run)
    todo = [place for place in range(len(clips)) if not score_file(run, place).exists()]
    models = Models(run)
    barrier(world)  # nobody writes before all have listed the same
    score_share(run, world, models, clips, todo)
    barrier(world)
    if world.is_main:
        table, sound = joined_rows(run, clips)
        summarise(run, table)
        keep_examples(run, models, sound, table)
        score_tiles(run, models, sound)
        keep_outliers(run, models, sound["ucf101"])


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae evaluate`."""
    with recorded(params, "tae-evaluation") as (run, world):
        evaluate(run, world)
