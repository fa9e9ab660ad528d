"""Latents of the training clips by the twin of the autoencoder, for `tests.parity.pretraining transformer`.

    python -m tests.parity.encoding FOLDER --tae params/weights/tae.safetensors

FOLDER is what `tests.parity.training_data transformer` wrote. Beside it come the latents as `moviegen precompute` has
them, a file a bucket, with their captions' embeddings: on a GPU a minute's work of a CPU is a second's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.parity.pretraining import frames_of
from tests.parity.torch_tae import TorchTAE


def cover(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """As `moviegen.data.pixels.cover`: scaled to just cover height x width, its centre kept."""
    scale = max(height / frame.shape[0], width / frame.shape[1])
    rows, columns = min(height / scale, frame.shape[0]), min(width / scale, frame.shape[1])
    left, top = (frame.shape[1] - columns) / 2, (frame.shape[0] - rows) / 2
    box = (left, top, left + columns, top + rows)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box))


def view(path: Path, frames: list[int], height: int, width: int) -> torch.Tensor:
    """Float32 (3, T, H, W) in [-1, 1]."""
    seen = frames_of(path)[frames].permute(0, 2, 3, 1).numpy()
    covered = np.stack([cover(np.ascontiguousarray(frame), height, width) for frame in seen])
    return torch.from_numpy(covered).permute(3, 0, 1, 2).float() / 127.5 - 1


def load_tae(path: Path, device: torch.device) -> tuple[TorchTAE, SimpleNamespace]:
    """The twin of a file that `moviegen` wrote, and its config."""
    with safe_open(path, "numpy") as file:
        config = SimpleNamespace(**json.loads(file.metadata()["tae_config"]))
    tae = TorchTAE(config)
    tae.load({name: array.astype(np.float32) for name, array in load_file(path).items()})
    return tae.to(device), config


@torch.inference_mode()
def encode(tae: TorchTAE, config: SimpleNamespace, video: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the normalised latent (C, T', H', W')."""
    mean, logvar = tae.encode(video[None])
    mean, std = (mean - config.shift_factor) * config.scaling_factor, (0.5 * logvar).exp() * config.scaling_factor
    return mean[0].cpu().numpy(), std[0].cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tae", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    tae, config = load_tae(options.tae, device)
    captions = dict(np.load(options.folder / "captions.npz"))
    for bucket, clips in json.loads((options.folder / "views.json").read_text(encoding="utf-8")).items():
        _, height, width = map(int, bucket.split("x"))
        videos = (view(options.folder / "clips" / clip["file"], clip["frames"], height, width) for clip in clips)
        mean, std = zip(*(encode(tae, config, video.to(device)) for video in videos), strict=True)
        rows = [clip["caption"] for clip in clips]
        latents = {"mean": np.stack(mean).astype(np.float16), "std": np.stack(std).astype(np.float16)}
        np.savez(options.folder / f"{bucket}.npz", **latents, **{name: array[rows] for name, array in captions.items()})


if __name__ == "__main__":
    main()
