"""What `tests.parity.pretraining` trains on, as files that are read without anything of moviegen.

    python -m tests.parity.training_data tae FOLDER --config pretrain
    python -m tests.parity.training_data transformer FOLDER --config small

Both hold what training may see and nothing that is held out. For the autoencoder: the files of the training clips
(`clips/`), and VGG16 with the heads of LPIPS, its kernels in 8 bits (`lpips.npz`): these are the most bytes, and a
machine elsewhere may be sent only so many. For the transformer: the files of the captioned clips and
what stage 3 sees of them, by bucket (`views.json`; `tests.parity.encoding` makes latents of them), the captions'
embeddings, and the values that a transformer starts from.
`settings.json` has the networks and the recipe's seed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from moviegen import config, runs
from moviegen.config import Params, weights_file
from moviegen.data import assets
from moviegen.data.clips import Clip
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.latents import image_buckets, video_buckets
from moviegen.data.pixels import clip_indices
from moviegen.data.splits import load_split
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import write_json
from moviegen.tae.lpips import arrays_of_flax
from moviegen.text.encoders import encoders, origins
from tests.parity.names import START

MOST_BYTES = 700_000  # of a clip without a caption, so that all of it may be sent elsewhere
STAGE = 3


def in_8_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel as int8, and what each output channel is multiplied by."""
    scale = np.abs(array).reshape(len(array), -1).max(1).reshape(-1, *[1] * (array.ndim - 1)) / 127
    return np.round(array / scale).astype(np.int8), scale.astype(np.float32)


def write_autoencoder_data(folder: Path, params: Params) -> None:
    data = runs.find(params, "tae-mixkit").upstream("data")
    training = [clip for split in ("ucf101_train", "mixkit_train") for clip in load_split(data, split)]
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in training:
        if clip.caption or clip.path.stat().st_size <= MOST_BYTES:
            shutil.copyfile(clip.path, folder / "clips" / clip.path.name)
    published = arrays_of_flax(weights_file("tae.loss.lpips_checkpoint", params.tae.loss.lpips_checkpoint))
    kernels = {
        name: in_8_bits(array) for name, array in published.items() if name.startswith("net.") and array.ndim > 1
    }
    np.savez_compressed(
        folder / "lpips.npz",
        **{name: array for name, array in published.items() if name not in kernels},
        **{name: array for name, (array, _) in kernels.items()},
        **{f"{name}.scale": scale for name, (_, scale) in kernels.items()},
    )
    write_settings(folder, data, params, network=params.tae.model.model_dump())


def write_transformer_data(folder: Path, params: Params) -> None:
    run, recipe = runs.find(params, f"stage{STAGE}"), params.recipes[STAGE]
    training = load_split(run.upstream("data"), "mixkit_train")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in training:
        shutil.copyfile(clip.path, folder / "clips" / clip.path.name)
    row = {clip: number for number, clip in enumerate(training)}
    buckets = image_buckets(recipe, training) | video_buckets(recipe, training)
    views = {
        str(bucket): [
            {"file": clip.path.name, "caption": row[clip], "frames": frames_seen(clip, bucket.frames)} for clip in clips
        ]
        for bucket, clips in buckets.items()
    }
    write_json(folder / "views.json", views)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    for name, captions in {"captions": [clip.caption for clip in training], "empty": [""]}.items():
        text, mask = read_embeddings(embeddings, captions, params.text)
        save_npz(folder / f"{name}.npz", text=text.astype(np.float16), mask=mask)
    save_dit(folder / START, DiT(params.dit_config(STAGE)))
    write_settings(folder, run.upstream("data"), params, network=params.dit_config(STAGE).model_dump())


def frames_seen(clip: Clip, length: int) -> list[int]:
    return [index * clip.stride for index in clip_indices(clip.frames, length)]


def write_settings(folder: Path, data: runs.Run, params: Params, network: dict) -> None:
    write_json(folder / "settings.json", {"network": network, "seed": params.seed, "data": data.name})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tae", "transformer"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="small")
    options = parser.parse_args()
    params = assets.provided(lambda **given: config.load(options.config, given))
    write = {"tae": write_autoencoder_data, "transformer": write_transformer_data}[options.what]
    write(options.folder, params)


if __name__ == "__main__":
    main()
