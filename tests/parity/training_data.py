"""What `tests.parity.pretraining` trains on, as files that are read without anything of moviegen.

    python -m tests.parity.training_data tae FOLDER --config pretrain
    python -m tests.parity.training_data transformer FOLDER --config small

Both hold what training may see and nothing that is held out. For the autoencoder: the centre frames of every training
clip, small, as videos (`clips/`), and VGG16 with the heads of LPIPS in 8 bits (`lpips.npz`), so that all of it fits
into what a machine elsewhere may be sent. For the transformer: the latents that stage 3 trains on, by bucket
(`16x144x240.npz`), and the captions' embeddings beside them, and the
values that a transformer starts from. `settings.json` has the networks and the recipe.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from moviegen import config, runs
from moviegen.config import Params, from_root, weights_file
from moviegen.data import assets, clips, pixels
from moviegen.data.clips import Clip
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.programs import train_dit
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import write_json
from moviegen.tae.lpips import arrays_of_flax
from moviegen.train.batches import ClipSet

SHORT_SIDE, MOST_FRAMES = 216, 32  # of the clips: crops of half as many pixels and more are cut out of them
QUALITY = {"crf": "18", "preset": "medium"}
STAGE = 3


def write_clip(path: Path, clip: Clip) -> None:
    """The centre frames of a clip, its short side `SHORT_SIDE`."""
    frames = clips.frames_of(clip, pixels.clip_indices(clip.frames, min(clip.frames, MOST_FRAMES)))
    scale = SHORT_SIDE / min(clip.height, clip.width)
    height, width = (2 * round(side * scale / 2) for side in (clip.height, clip.width))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1001), options=QUALITY)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in pixels.cover(frames, height, width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def in_8_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel as int8, and what each output channel is multiplied by."""
    scale = np.abs(array).reshape(len(array), -1).max(1).reshape(-1, *[1] * (array.ndim - 1)) / 127
    return np.round(array / scale).astype(np.int8), scale.astype(np.float32)


def write_autoencoder_data(folder: Path, params: Params) -> None:
    data = runs.find(params, "tae-mixkit").upstream("data")
    training = [clip for split in ("ucf101_train", "mixkit_train") for clip in load_split(data, split)]
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(tqdm(training, "writing clips")):
        write_clip(folder / "clips" / f"{number:03d}.mp4", clip)
    published = arrays_of_flax(weights_file("tae.loss.lpips_checkpoint", params.tae.loss.lpips_checkpoint))
    kernels = {
        name: in_8_bits(array) for name, array in published.items() if name.startswith("net.") and array.ndim > 1
    }
    save_npz(
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
    write(from_root(options.folder), params)


if __name__ == "__main__":
    main()
