"""How clips are cut into tiles, which the autoencoder encodes and decodes one after the other (paper 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from moviegen.config.networks import Group
from moviegen.config.shapes import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, check_pixels, latent_size

Span = tuple[int, int]  # start and stop


class Tiling(Group):
    """Tiles of clips that are encoded or decoded outside of training: in time the paper's, in space whole frames."""

    frames: int = Field(32, gt=0, description="of a tile")
    overlap_frames: int = Field(
        16, ge=0, description="that a tile shares with the next where it is decoded; encoded tiles share none"
    )
    size: tuple[int, int] | None = Field(None, description="H, W of a tile in pixels; null: whole frames")
    overlap: int = Field(64, ge=0, description="pixels that a tile shares with its neighbours, if there are any")

    @model_validator(mode="after")
    def _divisible(self) -> Tiling:
        for name, count in (("frames", self.frames), ("overlap_frames", self.overlap_frames)):
            if count % TEMPORAL_COMPRESSION:
                raise ValueError(f"{name} {count} is not divisible by {TEMPORAL_COMPRESSION}")
        if self.overlap_frames >= self.frames:
            raise ValueError(f"overlap_frames {self.overlap_frames} must be less than frames {self.frames}")
        if self.size is None:
            return self
        check_pixels("size", self.size, SPATIAL_COMPRESSION)
        if self.overlap % SPATIAL_COMPRESSION or self.overlap >= min(self.size):
            raise ValueError(
                f"overlap {self.overlap} must be divisible by {SPATIAL_COMPRESSION} and less than both sides of size "
                f"{self.size[0]}x{self.size[1]}"
            )
        return self

    def encoded(self, frames: int) -> list[Span]:
        """The frames of each tile in time, in which a clip is encoded; the last may be shorter."""
        return [(start, min(start + self.frames, frames)) for start in range(0, frames, self.frames)]

    def decoded(self, latent_frames: int) -> list[Span]:
        """The latent frames of each tile in time, in which a latent is decoded."""
        tile, overlap = self.frames // TEMPORAL_COMPRESSION, self.overlap_frames // TEMPORAL_COMPRESSION
        return spans(latent_frames, tile, overlap)

    def cut(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """The latent rows and the latent columns of the tiles of a latent frame of that height and width."""
        if self.size is None:
            return [(0, height)], [(0, width)]
        overlap = self.overlap // SPATIAL_COMPRESSION
        rows, columns = (
            spans(side, tile // SPATIAL_COMPRESSION, overlap)
            for side, tile in zip((height, width), self.size, strict=True)
        )
        return rows, columns

    def tiles(self, height: int, width: int) -> int:
        """How many tiles a frame of that many pixels has."""
        rows, columns = self.cut(*latent_size(1, height, width)[1:])
        return len(rows) * len(columns)

    def largest(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The largest tile of a clip: frames, height and width in pixels."""
        tile = self.size or (height, width)
        return min(self.frames, frames), min(tile[0], height), min(tile[1], width)


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Tiles that cover `length`, all as long: the last starts earlier than its turn. One compiled graph serves them.

    Raises:
        ValueError: the overlap is not smaller than the tile, or a number is negative.
    """
    if not 0 <= overlap < tile or length < 1:
        raise ValueError(f"cannot cover {length} with tiles of {tile} that overlap by {overlap}")
    if length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


def scaled(covered: Sequence[Span], factor: int) -> list[Span]:
    """The same tiles where there are `factor` places for each one."""
    return [(factor * start, factor * stop) for start, stop in covered]
