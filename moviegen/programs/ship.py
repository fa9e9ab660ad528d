"""`python -m moviegen ship`: a scale's trained weights, as the repository keeps them in `params/weights/`.

Each file is of float16, beside a manifest of its name: what the run that trained it says of itself (commit, parameters,
seconds, machine), the runs before it, the file's own hash, and scores. `pretrain` makes the two autoencoders, which are
scored, rounded as they are, on scenes of the film, and photographs, that were never trained on: the centre frames of
the held-out clips of UCF-101's layout. `small` makes the transformer, whose scores are those of its scale's retrieval.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pandas as pd
from tqdm import tqdm

from moviegen import runs
from moviegen.config import ConfigError, Params, outputs_folder, project_root
from moviegen.data.clips import Clip
from moviegen.data.crops import centre_view
from moviegen.data.pixels import to_uint8
from moviegen.data.samples import MOTIONS
from moviegen.data.scores import MEASURES, score
from moviegen.data.splits import data_folder, load_split
from moviegen.dit.weights import for_sampling
from moviegen.runs.arrays import save_arrays
from moviegen.runs.files import checksum, read_json, write_json
from moviegen.runs.weights import load_arrays
from moviegen.tae.lpips import frame_distance
from moviegen.tae.model import Reconstruct
from moviegen.tae.weights import load_tae

WEIGHTS = "params/weights"
AUTOENCODERS = {"image-autoencoder": "tae-image", "tae": "tae-mixkit"}  # file -> program that trained it
TRANSFORMER = "transformer"
SIZE, FRAMES = (128, 128), 16  # of the clips that autoencoders are scored on
KEPT = ("program", "commit", "parameters", "upstream", "versions", "machine", "operators", "seconds")


def newest(params: Params, program: str) -> Path:
    """The folder of the run of a program that was finished last at this scale.

    Raises:
        ConfigError: there is none.
    """
    folders = (outputs_folder(params) / "runs").glob(f"{program}-*/manifest.json")
    manifests = {path.parent: read_json(path, "remove its folder") for path in folders}
    finished = {folder: one["finished"] for folder, one in manifests.items() if one.get("status") == "complete"}
    if not finished:
        raise ConfigError(
            f"no finished run of {program} in {outputs_folder(params) / 'runs'}: `make pretrain` has them"
        )
    return max(finished, key=finished.__getitem__)


def lineage(folder: Path) -> dict[str, Any]:
    """What the runs before a run say of themselves, by program."""
    upstream = read_json(folder / "manifest.json", "remove its folder")["upstream"]
    before: dict[str, Any] = {}
    for program, name in upstream.items():
        path = folder.with_name(name)
        before |= lineage(path) | {program: _kept(read_json(path / "manifest.json", "remove its folder"))}
    return before


def _kept(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in KEPT if name in manifest}


def write_weights(name: str, source: Path) -> Path:
    """Writes the weights of a run's file in float16."""
    target = project_root() / WEIGHTS / f"{name}.safetensors"
    arrays, metadata = load_arrays(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(target, {key: np.asarray(array, np.float16) for key, array in arrays.items()}, metadata)
    return target


def write_manifest(weights: Path, folder: Path, scores: Mapping[str, Any]) -> None:
    """Writes, beside a file of weights, what the run in `folder` and those before it say of themselves, and scores."""
    manifest = _kept(read_json(folder / "manifest.json", "remove its folder"))
    manifest |= {"sha256": checksum(weights), "before": lineage(folder), "scores": scores}
    write_json(weights.with_suffix(".json"), manifest)


def autoencoder_scores(weights: Path, clips: list[Clip], params: Params) -> dict[str, Any]:
    """MEASURES of each clip's centre frames by its path in the data folder; their means over film and photographs."""
    network, lpips, root = Reconstruct(load_tae(weights)), frame_distance(params), data_folder(params)
    each: dict[str, dict[str, Any]] = {}
    for clip in tqdm(clips, f"scoring {weights.stem}", disable=None):
        video = centre_view(clip, FRAMES, *SIZE)
        restored = to_uint8(network(ms.Tensor(video[None])).asnumpy()[0])
        measured = score(to_uint8(video), restored, lpips)
        each[clip.path.relative_to(root).as_posix()] = {name: measured[name] for name in MEASURES}
    table = pd.DataFrame(each.values(), dtype=float)
    is_photograph = np.array([clip.label in MOTIONS for clip in clips])
    kinds = {"film": table[~is_photograph], "photographs": table[is_photograph]}
    means = {kind: {"clips": len(rows), **rows.mean().to_dict()} for kind, rows in kinds.items() if len(rows)}
    return {"rule": f"centre {FRAMES} frames, {SIZE[0]}x{SIZE[1]}", **means, "clips": each}


def ship_autoencoder(name: str, params: Params) -> Path:
    """One of the two, and its scores."""
    program = AUTOENCODERS[name]
    data, folder = runs.find(params, program).upstream("data"), newest(params, program)
    weights = write_weights(name, folder / "tae.safetensors")
    write_manifest(weights, folder, autoencoder_scores(weights, load_split(data, "ucf101_test"), params))
    return weights


def ship_transformer(params: Params) -> Path:
    """What a scale samples with, and what its retrieval found."""
    folder, retrieval = newest(params, "stage3"), newest(params, "retrieval")
    weights = write_weights(TRANSFORMER, for_sampling(folder))
    write_manifest(weights, folder, {"retrieval": read_json(retrieval / "summary.json", "remove its folder")})
    return weights


def main(params: Params, options: argparse.Namespace) -> None:
    """`ship image-autoencoder|tae|transformer`."""
    print(ship_transformer(params) if options.what == TRANSFORMER else ship_autoencoder(options.what, params))
