"""What `tests.parity.pretraining` trains on, as files that are read without anything of moviegen.

    python -m tests.parity.training_data tae FOLDER --config pretrain
    python -m tests.parity.training_data transformer FOLDER --config small

Both hold what training may see and nothing that is held out. For the autoencoder: the files of the training clips
(`clips/`), and VGG16 with the heads of LPIPS, its kernels in 8 bits (`lpips.npz`): these are the most bytes, and a
machine elsewhere may be sent only so many. For the transformer: the latents that stage 3 trains on, by bucket
(`16x144x240.npz`), the captions' embeddings beside them, and the values that a transformer starts from.
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
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.programs import train_dit
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import write_json
from moviegen.tae.lpips import arrays_of_flax
from moviegen.train.batches import ClipSet

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
    run = runs.find(params, f"stage{STAGE}")
    batches = train_dit.training_batches(run, STAGE, train_dit.Caches.of(run, STAGE), World())
    folder.mkdir(parents=True, exist_ok=True)
    for bucket, clip_set in (batches.images | batches.videos).items():
        write_bucket(folder / f"{bucket}.npz", clip_set)
    save_npz(folder / "empty.npz", text=batches.empty[0][0], mask=batches.empty[-1][0])
    save_dit(folder / "start.safetensors", DiT(params.dit_config(STAGE)))
    write_settings(folder, run.upstream("data"), params, network=params.dit_config(STAGE).model_dump())


def write_bucket(path: Path, clip_set: ClipSet) -> None:
    samples = clip_set.read(np.arange(len(clip_set.names)))
    text, mask = samples.text
    half = {"mean": samples.mean, "std": samples.std, "text": text}
    save_npz(path, mask=mask, **{name: array.astype(np.float16) for name, array in half.items()})


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
