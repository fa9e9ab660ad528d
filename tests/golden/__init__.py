"""The released implementation's numbers: a small set in this folder, and the given one that it was made from.

The given set lies beside the repository, in `../shared/golden`, or nowhere. A set is three `.npz` files:

    dit        param/<published name>; case<i>/latent (B, T', C, H', W'), timestep, ul2, metaclip, byt5, output
    tae        param/<published name>; encode/<frames>/video, mean and decode/<frames>/latent, video (B, C, T, H, W)
    schedule   <schedule>_<steps>: the times at which the steps begin, from 1000, which is noise, down
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moviegen.config import DiTConfig, TAEConfig

CASES = (0, 1, 2)
FRAMES = (1, 8, 9, 16)
SCHEDULES = ("linear", "linear-quadratic")
STEPS = (10, 25, 50, 51, 100)


@dataclass(frozen=True)
class Golden:
    """A set.

    Args:
        folder, prefix: where its files are, and what their names begin with.
        dit, tae: shapes of the networks whose numbers it holds.
    """

    folder: Path
    prefix: str
    dit: DiTConfig
    tae: TAEConfig

    def path(self, part: str) -> Path:
        return self.folder / f"{self.prefix}{part}.npz"

    def read(self, part: str) -> dict[str, np.ndarray]:
        with np.load(self.path(part)) as file:
            return dict(file)


# The released transformer has no masks, and the released TAE pads with zeros where it lengthens a video.
SMALL = Golden(
    Path(__file__).parent,
    "",
    DiTConfig(
        width=24, ffn_width=40, num_heads=3, num_layers=2, max_size=(3, 4, 6), text_widths=(40, 24, 32),
        attend_to_padding=True,
    ),
    TAEConfig(
        base_channels=6, channel_multipliers=(1, 1, 2, 2), num_res_blocks=1, num_groups=3, latent_channels=4,
        temporal_upsample_padding="zeros",
    ),
)  # fmt: skip
GIVEN = Golden(
    Path(__file__).parents[3] / "shared" / "golden",
    "reference_",
    DiTConfig(width=64, ffn_width=176, num_heads=4, num_layers=2, max_size=(4, 8, 8), attend_to_padding=True),
    TAEConfig(base_channels=32, channel_multipliers=(1, 1, 2, 2), num_res_blocks=1, temporal_upsample_padding="zeros"),
)
SETS = {"small": SMALL} | ({"given": GIVEN} if GIVEN.folder.is_dir() else {})


def weights(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a file, under their published names."""
    return {name.removeprefix("param/"): array for name, array in arrays.items() if name.startswith("param/")}


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, as a share of the largest number wanted."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
