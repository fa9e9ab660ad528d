"""`python -m moviegen tae encode|decode|export`: one file through a trained TAE.

    tae encode --input clip.mp4 --output clip.npz      every frame; long clips in tiles
    tae decode --input clip.npz --output again.mp4     or .gif; of one frame .png; without a suffix a folder of images
    tae export --output vae.safetensors                the image autoencoder inside, under diffusers' names

`--weights` names a TAE that this package wrote; without it the report's own is taken. An encoded clip is an `.npz` with
`latent_mean` and `latent_std` (C, T', H', W') float32, normalised for the transformer, and `frames`, `fps`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from moviegen import device, runs
from moviegen.config import SPATIAL_COMPRESSION, ConfigError, Params
from moviegen.data import videos
from moviegen.data.clips import SHOWN_FPS
from moviegen.data.formats import clip_writer
from moviegen.data.pixels import resize_and_crop, to_uint8
from moviegen.runs.arrays import CheckpointError, save_npz
from moviegen.runs.files import check_writable
from moviegen.runs.weights import load_arrays
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.tiling import TILE, decode_tiles, encode_tiles, spans
from moviegen.tae.weights import export_diffusers, load_tae


def encode_file(tae: TAE, source: Path, target: Path) -> None:
    """Encodes every frame of a video, cropped at the borders to whole latent pixels.

    Raises:
        BrokenVideo: it cannot be decoded.
    """
    info = videos.probe(source)
    height, width = (side // SPATIAL_COMPRESSION * SPATIAL_COMPRESSION for side in (info.height, info.width))
    windows = videos.read_windows(source, (range(*span) for span in spans(info.frames, TILE)), info.reader)
    mean, logvar = encode_tiles(Encode(tae), (resize_and_crop(frames, height, width)[None] for frames in windows))
    std = np.exp(0.5 * logvar[0]) * np.float32(tae.config.scaling_factor)
    save_npz(target, latent_mean=tae.normalize(mean)[0], latent_std=std, frames=info.frames, fps=info.fps or SHOWN_FPS)


def decode_file(tae: TAE, source: Path, target: Path) -> None:
    """Decodes what `encode_file` wrote, to the format that the target's suffix names.

    Raises:
        CheckpointError: the file does not hold an encoded clip.
        ConfigError: the format is not known, or cannot hold the clip.
    """
    latent, frames, fps = read_encoded(tae, source)
    write = clip_writer(target, frames)
    pieces = decode_tiles(Decode(tae), tae.denormalize(latent[None]), frames)
    write(target, np.concatenate([to_uint8(piece[0]) for piece in pieces]), fps)


def read_encoded(tae: TAE, source: Path) -> tuple[np.ndarray, int, float]:
    """A clip that `encode_file` wrote: its latent (C, T', H', W'), its frames and how many of them make a second.

    Raises:
        CheckpointError: the file does not hold an encoded clip, or not this autoencoder's.
    """
    arrays, _ = load_arrays(source)
    if missing := {"latent_mean", "frames", "fps"} - set(arrays):
        raise CheckpointError(f"{source} is not an encoded clip: it lacks {', '.join(sorted(missing))}")
    latent, frames, fps = (arrays[name] for name in ("latent_mean", "frames", "fps"))
    if latent.ndim != 4 or latent.shape[0] != tae.config.latent_channels or not np.isfinite(latent).all():
        raise CheckpointError(
            f"{source}: latent_mean of shape {latent.shape} is not finite values (C, T, H, W) of this autoencoder's "
            f"{tae.config.latent_channels} channels"
        )
    if frames.size != 1 or fps.size != 1 or not 0 < frames <= latent.shape[1] * tae.stretch or not 0 < fps < np.inf:
        raise CheckpointError(f"{source}: {frames} frames, {fps} a second, are not what its latent is")
    return latent, int(frames), float(fps)


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae encode`, `tae decode` or `tae export`."""
    required = ("output",) if options.action == "export" else ("input", "output")
    if missing := [f"--{name}" for name in required if not getattr(options, name)]:
        raise ConfigError(f"tae {options.action} needs {' and '.join(missing)}")
    check_writable(Path(options.output).parent, "--output")
    device.start(params.seed, params.launch)
    weights = options.weights or runs.find(params, "tae-mixkit").folder / "tae.safetensors"
    try:
        tae = load_tae(Path(weights))
        if options.action == "export":
            export_diffusers(Path(options.output), tae)
        else:
            work = {"encode": encode_file, "decode": decode_file}[options.action]
            work(tae, Path(options.input), Path(options.output))
    except videos.BrokenVideo as error:
        raise ConfigError(str(error)) from error
    print(options.output)
