"""A decoded frame as a player shows it: upright, of square pixels, in RGB.

The matrix and the range of its colours are those that the file states. Where it states no matrix: BT.709 from
1280 pixels of width or more than 576 rows on, else BT.601, as mpv has it. An alpha channel is dropped, and interlaced
fields stay woven.
"""

import math
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, VideoReformatter

MAX_PIXELS = 8192 * 4320  # of one frame: 8K
HDR = {
    ("color_trc", int(ColorTrc.SMPTE2084)): "PQ (smpte2084)",
    ("color_trc", int(ColorTrc.ARIB_STD_B67)): "HLG (arib-std-b67)",
    ("color_primaries", int(ColorPrimaries.BT2020)): "BT.2020",
}
TO_SDR = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)
# AVColorSpace of ITU-T H.273 that swscale converts: BT.709, FCC, BT.601 (two numbers), SMPTE 240M, BT.2020
MATRICES = {1, 4, 5, 6, 7, 9}
UNSPECIFIED = {2, 3}
BT709, BT601 = 1, 5  # numbers of the reformatter, not those of H.273
FULL_FROM_LIMITED = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
TOLERANCE = 0.01  # of a display matrix's entries: half a degree


class UnsupportedPicture(ValueError):
    """Frames that cannot be shown right here: the reason, and what mends the file."""


class Orientation(NamedTuple):
    """How stored frames become upright: rows and columns exchanged first, then mirrored."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool


class Pictures:
    """Turns the decoded frames of one file into pictures.

    Args:
        pixel_aspect: width over height of a stored pixel; None or 0 where the file does not say: square.
    """

    def __init__(self, pixel_aspect: Fraction | None) -> None:
        self.pixel_aspect = pixel_aspect or Fraction(1)
        self._reformatter = VideoReformatter()  # kept: setting one up costs more than converting a small frame

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Height and width as shown. Raises UnsupportedPicture as `rgb` does."""
        height, width = frame.height, self._width(frame)
        return (width, height) if orientation_of(frame).transpose else (height, width)

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3).

        Raises UnsupportedPicture for HDR and BT.2020 colours, which would come out washed out, for a colour matrix that
        swscale does not know, and for a display matrix that is more than quarter turns and mirrors.
        """
        check_colours(frame)
        orientation, width = orientation_of(frame), self._width(frame)
        converted = self._reformatter.reformat(
            frame,
            width=width,
            format="rgb24",
            src_colorspace=None if frame.colorspace not in UNSPECIFIED else BT709 if _is_hd(frame) else BT601,
            interpolation="BILINEAR" if width == frame.width else "BICUBIC",
            threads=1,
        )
        picture = converted.to_ndarray()
        if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:
            picture = FULL_FROM_LIMITED[picture]  # swscale takes every grey for full range
        picture = picture.swapaxes(0, 1) if orientation.transpose else picture
        return picture[:: -1 if orientation.flip_rows else 1, :: -1 if orientation.flip_columns else 1]

    def stored(self, frame: av.VideoFrame) -> list[np.ndarray]:
        """All that `rgb` follows from, at little cost: the stored planes, uint8 (H, bytes), or else `rgb`.

        Raises UnsupportedPicture as `rgb` does, but for planes.
        """
        if not frame.format.is_planar or any(plane.line_size <= 0 for plane in frame.planes):
            return [self.rgb(frame)]
        widths = [0] * len(frame.planes)  # in bytes, without what fills the rows up
        for component in frame.format.components:
            widths[component.plane] += component.width * math.ceil(component.bits / 8)
        planes = []
        for plane, width in zip(frame.planes, widths, strict=True):
            rows = np.frombuffer(cast(memoryview, plane), np.uint8).reshape(-1, plane.line_size)
            planes.append(rows[: plane.height, :width])
        return planes

    def is_plain(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is shown as it is stored."""
        return orientation_of(frame) == Orientation(False, False, False) and self._width(frame) == frame.width

    def _width(self, frame: av.VideoFrame) -> int:
        width = max(1, round(frame.width * self.pixel_aspect))
        if width * frame.height > MAX_PIXELS:
            raise UnsupportedPicture(
                f"its frames are shown as {width}x{frame.height} (pixels {self.pixel_aspect} as wide as high): "
                f"more than {MAX_PIXELS} pixels"
            )
        return width


def check_colours(frame: av.VideoFrame) -> None:
    """Raises UnsupportedPicture for colours that would come out wrong."""
    for (attribute, value), name in HDR.items():
        if getattr(frame, attribute) == value:
            raise UnsupportedPicture(f"its colours are HDR, {name}; make it SDR: ffmpeg -i IN -vf {TO_SDR} OUT.mp4")
    if not (frame.format.is_rgb or frame.colorspace in MATRICES | UNSPECIFIED):
        raise UnsupportedPicture(
            f"its colour matrix is number {frame.colorspace} of ITU-T H.273, which is not converted here; "
            "make it BT.709: ffmpeg -i IN -vf zscale=m=bt709 OUT.mp4"
        )


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How a player turns the frame: telephones film sideways, front cameras mirrored, and say so in a matrix.

    Raises UnsupportedPicture for a matrix that is more than quarter turns and mirrors.
    """
    side_data = cast(SideDataContainer, frame.side_data)
    if Type.DISPLAYMATRIX not in side_data:
        return Orientation(False, False, False)
    a, b, _, c, d = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), np.int32)[
        :5
    ].tolist()  # x' = a x + c y, y' = b x + d y
    scale = np.hypot(a, b), np.hypot(c, d)
    if not all(scale):
        raise UnsupportedPicture("its display matrix has no area")
    entries = np.array([a, b, c, d]) / np.repeat(scale, 2)
    straight = np.round(entries)
    if np.abs(entries - straight).max() > TOLERANCE or abs(straight[[0, 3]]).sum() == 1:
        angle = np.degrees(np.arctan2(b, a))
        raise UnsupportedPicture(
            f"it is shown turned by {angle:.0f} degrees, no multiple of 90; turn its pixels: ffmpeg -i IN OUT.mp4"
        )
    a, b, c, d = straight
    return Orientation(True, b < 0, c < 0) if a == 0 else Orientation(False, d < 0, a < 0)


def _is_hd(frame: av.VideoFrame) -> bool:
    return frame.width >= 1280 or frame.height > 576
