"""`python -m moviegen tae encode|decode|export`: files through a trained TAE.

    tae encode --input clip.mp4 --output clip.npz     every frame
    tae decode --input clip.npz --output again.mp4    or .gif; of one frame .png; without a suffix a folder of images
    tae encode --input films 'a/*.mov' --output new   files, folders and patterns: into a folder, by their names
    tae decode --input new --output again --format gif
    tae export --output vae.safetensors               the image autoencoder inside, under diffusers' names

`--weights` names a TAE that this package wrote; without it the report's own is taken. An encoded clip is an `.npz` with
`latent_mean` and `latent_std` (C, T', H', W') float32, normalised for the transformer, and `frames`, `fps`.

Clips are read, encoded, decoded and written in tiles (`tae.tiling`): memory does not grow with their length. What is
there already is passed over: a command that was cut is given again. A file that cannot be read ends no other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from moviegen import device, runs
from moviegen.config import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, ConfigError, Params, Tiling, latent_size
from moviegen.data import videos
from moviegen.data.clips import SHOWN_FPS
from moviegen.data.formats import clip_writer
from moviegen.data.pairs import pairs_of
from moviegen.data.pixels import cover, tiles_of, to_uint8
from moviegen.runs.arrays import CheckpointError, npz, read_npz, readable
from moviegen.runs.files import check_writable
from moviegen.runs.folders import is_video, listed
from moviegen.runs.parts import Parts, npz_in_parts, stored_parts
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.tiling import decode_tiles, encode_tiles
from moviegen.tae.weights import export_diffusers, load_tae

ENCODED = ".npz"
SUFFIXES = {"mp4": ".mp4", "gif": ".gif", "png": ""}  # --format -> of what is decoded into a folder
Work = Callable[[Path, Path], None]  # one file to another


# ---- one file


class Encoder:
    """Videos to encoded clips, with graphs that are compiled once a shape."""

    def __init__(self, tae: TAE, tiling: Tiling) -> None:
        self.tae, self.tiling, self.network = tae, tiling, Encode(tae)

    def __call__(self, source: Path, target: Path) -> None:
        """Encodes every frame of a video, cropped at the borders to whole latent pixels.

        Raises:
            BrokenVideo: it cannot be decoded.
        """
        info = videos.probe(source)
        height, width = (side // SPATIAL_COMPRESSION * SPATIAL_COMPRESSION for side in (info.height, info.width))
        shape = (self.tae.config.latent_channels, *latent_size(info.frames, height, width))
        spans = self.tiling.encoded(info.frames)
        read = videos.read_windows(source, (range(*span) for span in spans), info.reader)
        windows = (tiles_of(list(cover(frames, height, width))) for frames in read)
        encoded = encode_tiles(self.network, windows, (height, width), self.tiling)
        shapes = {"latent_mean": shape, "latent_std": shape}
        with (
            npz_in_parts(target, shapes, frames=info.frames, fps=info.fps or SHOWN_FPS) as put,
            frame_bar(source, info.frames) as bar,
        ):
            for (mean, logvar), (start, stop) in zip(encoded, spans, strict=True):
                std = np.exp(0.5 * logvar[0]) * np.float32(self.tae.config.scaling_factor)
                put(start // TEMPORAL_COMPRESSION, {"latent_mean": self.tae.normalize(mean)[0], "latent_std": std})
                bar.update(stop - start)


class Decoder:
    """Encoded clips to videos or images, with graphs that are compiled once a shape."""

    def __init__(self, tae: TAE, tiling: Tiling) -> None:
        self.tae, self.tiling, self.network = tae, tiling, Decode(tae)

    def __call__(self, source: Path, target: Path) -> None:
        """Decodes what `Encoder` wrote, to the format that the target's suffix names.

        Raises:
            CheckpointError: the file does not hold an encoded clip.
            ConfigError: the format is not known, or cannot hold the clip.
        """
        latent, frames, fps = read_encoded(self.tae, source)
        write = clip_writer(target, frames)
        pieces = decode_tiles(self.network, latent, frames, self.tiling)
        with frame_bar(source, frames) as bar:
            write(target, (frame for piece in told(pieces, bar) for frame in to_uint8(piece[0])), fps)


def told(pieces: Iterator[np.ndarray], bar: tqdm) -> Iterator[np.ndarray]:
    """Frames, each of which moves a bar."""
    for piece in pieces:
        yield piece
        bar.update()


def frame_bar(source: Path, frames: int) -> tqdm:
    """How far one file is."""
    return tqdm(total=frames, desc=source.name, unit="frame", leave=False, disable=None, file=sys.stderr)


@dataclass(frozen=True)
class StoredLatent:
    """A normalised latent (C, T', H', W') in a file, as `decode_tiles` takes it; a window of frames is read at once."""

    tae: TAE
    file: Path
    stored: Parts

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, C, T', H', W')."""
        return 1, *self.stored.shape

    def __getitem__(self, place: tuple[slice, slice, slice]) -> np.ndarray:
        window = self.stored.read(place[2].start, place[2].stop).astype(np.float32, copy=False)
        if not np.isfinite(window).all():
            raise CheckpointError(f"{self.file}: latent_mean holds values that are not finite")
        return self.tae.denormalize(window)[None]


def read_encoded(tae: TAE, source: Path) -> tuple[StoredLatent, int, float]:
    """A clip that `Encoder` wrote: its latent, its frames and how many of them make a second.

    Raises:
        CheckpointError: the file does not hold an encoded clip, or not this autoencoder's.
    """
    with readable(source), npz(source) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
    if missing := {"latent_mean", "frames", "fps"} - there:
        raise CheckpointError(f"{source} is not an encoded clip: it lacks {', '.join(sorted(missing))}")
    frames, fps = read_npz(source, "frames", "fps", mend="encode the clip again")
    stored = stored_parts(source, "latent_mean")
    if len(stored.shape) != 4 or stored.shape[0] != tae.config.latent_channels:
        raise CheckpointError(
            f"{source}: latent_mean of shape {stored.shape} is not values (C, T, H, W) of this autoencoder's "
            f"{tae.config.latent_channels} channels"
        )
    if frames.size != 1 or fps.size != 1 or not 0 < frames <= stored.shape[1] * tae.stretch or not 0 < fps < np.inf:
        raise CheckpointError(f"{source}: {frames} frames, {fps} a second, are not what its latent is")
    return StoredLatent(tae, source, stored), int(frames), float(fps)


# ---- several


def transcode(work: Work, pairs: Mapping[Path, Path], doing: str) -> None:
    """All that is not there yet, one file after the other.

    Raises:
        ConfigError: files could not be read; the others are done.
    """
    there = [str(target) for target in pairs.values() if target.exists()]
    left = {source: target for source, target in pairs.items() if str(target) not in there}
    failed: list[str] = []
    if there:
        print(f"{len(there)} of {len(pairs)} are there already: {listed(there)}", file=sys.stderr)
    with tqdm(total=len(left), desc=doing, unit="file", disable=len(left) < 2 or None, file=sys.stderr) as bar:
        for source, target in left.items():
            try:
                work(source, target)
                print(target)
            except (ConfigError, videos.BrokenVideo) as error:
                failed.append(str(error))
                if len(pairs) > 1:
                    tqdm.write(f"failed: {error}", file=sys.stderr)
            bar.update()
    if failed:
        others = f"{doing} failed for {len(failed)} of {len(left)} files, the others are done: "
        raise ConfigError((others if len(pairs) > 1 else "") + "; ".join(failed))


def main(params: Params, options: argparse.Namespace) -> None:
    """`tae encode`, `tae decode` or `tae export`."""
    required = ("output",) if options.action == "export" else ("input", "output")
    if missing := [f"--{name}" for name in required if not getattr(options, name)]:
        raise ConfigError(f"tae {options.action} needs {' and '.join(missing)}")
    output = Path(options.output)
    check_writable(output.parent, "--output")
    pairs = {} if options.action == "export" else asked(options)
    device.start(params.seed, params.launch)
    weights = options.weights or runs.find(params, "tae-mixkit").folder / "tae.safetensors"
    tae = load_tae(Path(weights))
    if options.action == "export":
        export_diffusers(output, tae)
        print(output)
        return
    if options.action == "encode":
        transcode(Encoder(tae, params.tae.tiling), pairs, "encoding")
    else:
        transcode(Decoder(tae, params.tae.tiling), pairs, "decoding")


def asked(options: argparse.Namespace) -> Mapping[Path, Path]:
    """What `--input` names, with where each goes; see `pairs_of`."""
    output = Path(options.output)
    if options.action == "encode":
        return pairs_of(options.input, output, is_video, ENCODED)
    return pairs_of(options.input, output, lambda path: path.suffix == ENCODED, SUFFIXES[options.format or "mp4"])
