"""Latents as pictures that need no network: channel by channel, or in colours that a linear map gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen.config import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from moviegen.data import videos
from moviegen.report import results
from moviegen.runs import Run

GREY_RANGE = 3.0  # of a channel: what is less is black, more is white; normalised latents spread by about 1
LEAST_EXPLAINED = 0.5  # share of the colours' variance below which a map's pictures tell nothing
MOST_PAIRS = 24  # latents and their clips that the map is fitted to


@dataclass(frozen=True)
class Colours:
    """A linear map from a latent's channels to the mean colour of the pixels that a position decodes to.

    It is fitted by least squares to latents that a run sampled and the clips they were decoded to.

    Args:
        weights: (C + 1, 3), the last row a constant.
        clips: so many it was fitted to.
        explained: the share of these colours' variance that it explains.
    """

    weights: np.ndarray
    clips: int
    explained: float

    @property
    def is_telling(self) -> bool:
        """Whether its pictures resemble what latents decode to; an autoencoder that learnt little has none such."""
        return self.explained >= LEAST_EXPLAINED

    def __call__(self, latent: np.ndarray) -> np.ndarray:
        """A latent (C, T', H', W') as pictures, uint8 (T', H', W', 3)."""
        colours = _positions(latent) @ self.weights
        return (255 * colours.clip(0, 1)).round().astype(np.uint8).reshape(*latent.shape[1:], 3)


def colours(sample: Run | None) -> Colours | None:
    """The map by what a run sampled; None where it kept no latents."""
    pairs = sampled_pairs(sample)
    if not pairs:
        return None
    inputs = np.concatenate([_positions(latent) for latent, _ in pairs])
    wanted = np.concatenate([means for _, means in pairs])
    weights, *_ = np.linalg.lstsq(inputs, wanted, rcond=None)
    left, spread = ((inputs @ weights - wanted) ** 2).sum(), ((wanted - wanted.mean(0)) ** 2).sum()
    return Colours(weights, len(pairs), float(1 - left / spread) if spread else 1.0)


def sampled_pairs(sample: Run | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Latents (C, T', H', W') that a run sampled, and the `mean_colours` of the clips they were decoded to."""
    listed = results.read_csv(sample, "samples.csv")
    if sample is None or listed is None:
        return []
    files = {row.generated: sample_file(sample, row.index) for row in listed.head(MOST_PAIRS).itertuples(index=False)}
    frames = sample.params.sample.frames
    return [
        (load(path, "latent_mean"), mean_colours(videos.frames_of(sample.folder / clip, range(frames))))
        for clip, path in files.items()
        if path.is_file()
    ]


def sample_file(sample: Run, index: int) -> Path:
    """Where a sampling run keeps the latent of a prompt."""
    return sample.folder / "latents" / f"{index:02d}.npz"


def solution(errors: Run | None, schedule: str, steps: int) -> np.ndarray | None:
    """Where each caption's latent ended by a schedule, (B, C, T', H', W'); `reference` is one; None: it is not kept."""
    path = errors.folder / "solutions" / f"{schedule}-{steps}.npz" if errors else None
    return load(path, "end") if path and path.is_file() else None


def load(path: Path, name: str) -> np.ndarray:
    """An array of an `.npz` file.

    Raises:
        DamagedFile: it is damaged.
    """
    (array,) = results.read_npz(path, name)
    return array


def mean_colours(clip: Iterable[np.ndarray]) -> np.ndarray:
    """The mean colour, in [0, 1], of what each position of a clip's latent stands for: (T' H' W', 3).

    Args:
        clip: its frames, uint8 (H, W, 3), one after the other; the last few, or a single one, count as eight do.
    """
    side, frames = SPATIAL_COMPRESSION, []
    for frame in clip:
        height, width, _ = frame.shape
        frames.append((frame / 255).reshape(height // side, side, width // side, side, 3).mean((1, 3)))
    starts = range(0, len(frames), TEMPORAL_COMPRESSION)
    means = [np.mean(frames[start : start + TEMPORAL_COMPRESSION], axis=0) for start in starts]
    return np.stack(means).reshape(-1, 3)


def channels(latent: np.ndarray) -> np.ndarray:
    """The first frame of each channel of a (C, T', H', W') in grey, uint8 (C, H', W', 3)."""
    grey = (255 * (latent[:, 0] / GREY_RANGE / 2 + 0.5).clip(0, 1)).round().astype(np.uint8)
    return grey[..., None].repeat(3, -1)


def _positions(latent: np.ndarray) -> np.ndarray:
    """(C, T', H', W') -> (T' H' W', C + 1), the last a constant."""
    flat = latent.reshape(len(latent), -1).T
    return np.concatenate((flat, np.ones((len(flat), 1))), 1)
