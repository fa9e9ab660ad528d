"""Frames come out as a player shows them, against the arithmetic of ISO 14496-12 and ITU-T H.273."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from moviegen.data import readers
from moviegen.data.pictures import Pictures
from moviegen.data.videos import BrokenVideo, probe, read_frames, write_video

ONE = 1 << 16
HALF = 46341  # cos 45 degrees


def quarters(height=48, width=64):
    """Red top left, green top right, blue bottom left, white bottom right: six frames."""
    frames = np.zeros((6, height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    frames[:, :top, :left, 0] = frames[:, :top, left:, 1] = frames[:, top:, :left, 2] = frames[:, top:, left:] = 220
    frames[:, :top, left:, 1] = 220
    return frames


def with_matrix(path, a, b, c, d, frames=None):
    """Writes a clip with a display matrix (ISO 14496-12): x' = a x + c y, y' = b x + d y."""
    write_video(path, quarters() if frames is None else frames, 25)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((ONE, 0, 0, ONE), lambda image: image),
        ((0, ONE, -ONE, 0), lambda image: np.rot90(image, -1)),  # a quarter turn clockwise: the commonest
        ((-ONE, 0, 0, -ONE), lambda image: np.rot90(image, 2)),
        ((0, -ONE, ONE, 0), lambda image: np.rot90(image, 1)),
        ((-ONE, 0, 0, ONE), np.fliplr),  # front cameras
        ((ONE, 0, 0, -ONE), np.flipud),
        ((0, ONE, ONE, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -ONE, -ONE, 0), lambda image: np.rot90(image.swapaxes(0, 1), 2)),
        ((0, ONE - 9, 7 - ONE, 30), lambda image: np.rot90(image, -1)),  # rounded by the camera
    ],
)
def test_turns_and_mirrors(tmp_path, matrix, shown):
    stored = read_frames(with_matrix(tmp_path / "stored.mp4", ONE, 0, 0, ONE), [3])[0]
    path = with_matrix(tmp_path / "clip.mp4", *matrix)
    info = probe(path)
    frame = read_frames(path, [3], info.reader)[0]
    assert (info.height, info.width) == frame.shape[:2]
    assert np.array_equal(frame, shown(stored))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ((HALF, HALF, -HALF, HALF), "turned by 45 degrees"),
        ((ONE, ONE // 10, -ONE // 10, ONE), "turned by 6 degrees"),
        ((ONE, 0, ONE, 0), "no multiple of 90"),
    ],
)
def test_other_turns_are_refused_by_angle(tmp_path, matrix, message):
    path = with_matrix(tmp_path / "clip.mp4", *matrix)
    for look in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(BrokenVideo, match=message):
            look(path)


def encode(path, planes, pixels="yuv420p", codec="libx264", size=(48, 64), aspect=None, options=None, **colours):
    """Four frames of the same values in each plane, tagged with AVColor numbers of ITU-T H.273."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options or {"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        tags = {name: value for name, value in colours.items() if name in ("colorspace", "color_range")}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index in range(4):
            frame = av.VideoFrame(size[1], size[0], pixels)
            for plane, value in zip(frame.planes, planes, strict=True):
                kind = np.uint16 if "10" in pixels else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for name, value in colours.items():
                setattr(frame, name, value)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


GREY = (126, 128, 128)


@pytest.mark.parametrize(
    ("aspect", "size", "seen"),
    [(Fraction(16, 11), (48, 64), (48, 93)), (Fraction(3, 4), (48, 64), (48, 48)), (Fraction(1), (48, 64), (48, 64))],
)
def test_pixels_become_square(tmp_path, aspect, size, seen):
    path = encode(tmp_path / "clip.mp4", GREY, size=size, aspect=aspect)
    info = probe(path)
    assert (info.height, info.width) == seen == read_frames(path, [2], info.reader).shape[1:3]
    assert aspect == 1 or info.reader != "decord"


def test_square_pixels_and_a_turn(tmp_path):
    path = encode(tmp_path / "clip.mp4", GREY, aspect=Fraction(3, 2))
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    data[at : at + 20] = struct.pack(">5i", 0, ONE, 0, -ONE, 0)
    path.write_bytes(data)
    info = probe(path)
    assert (info.height, info.width) == (96, 48) == read_frames(path, [0], info.reader).shape[1:3]


def test_a_side_of_less_than_eight_pixels_is_refused(tmp_path):
    for size, aspect in (((6, 64), None), ((48, 16), Fraction(1, 4))):
        with pytest.raises(BrokenVideo, match="shorter than 8 pixels"):
            probe(encode(tmp_path / "clip.mp4", GREY, size=size, aspect=aspect))


# AVColorSpace -> Kr, Kb
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
COLOUR = (200, 60, 30)


def y_cb_cr(matrix, full=False, depth=8):
    """What COLOUR is stored as."""
    (kr, kb), (red, green, blue) = MATRICES[matrix], (value / 255 for value in COLOUR)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    steps, scale = 1 << depth - 8, (255, 255, 0) if full else (219, 224, 16)
    chroma = ((blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr))
    return round((y * scale[0] + scale[2]) * steps), *(round((value * scale[1] + 128) * steps) for value in chroma)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        *[(y_cb_cr(matrix), {"colorspace": matrix, "color_range": 1}) for matrix in MATRICES],
        *[(y_cb_cr(matrix, full=True), {"colorspace": matrix, "color_range": 2}) for matrix in (1, 5)],
        (y_cb_cr(1), {"colorspace": 1}),
        (y_cb_cr(1, depth=10), {"colorspace": 1, "color_range": 1, "pixels": "yuv420p10le"}),
        (y_cb_cr(1), {"colorspace": 1, "pixels": "yuv444p"}),
        (y_cb_cr(5), {}),  # says nothing, and is small: BT.601, as UCF-101 is
        (y_cb_cr(5), {"size": (576, 720)}),
        (y_cb_cr(1), {"size": (720, 1280)}),  # says nothing, and is large: BT.709
        (y_cb_cr(1), {"size": (1280, 720)}),
    ],
)
def test_colours_are_those_that_the_file_states(tmp_path, stored, tags):
    path = encode(tmp_path / "clip.mp4", stored, **tags)
    info = probe(path)
    for reader in {"counted", info.reader}:
        frame = read_frames(path, [1], reader)[0]
        assert np.abs(frame[20:-20, 20:-20].astype(int) - COLOUR).max() <= 3


def test_written_clips_state_their_colours(tmp_path):
    frames = np.broadcast_to(np.array(COLOUR, np.uint8), (2, 720, 1280, 3))
    write_video(tmp_path / "clip.mp4", frames, 25)
    assert np.abs(read_frames(tmp_path / "clip.mp4", [1])[0, 99, 99].astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"color_trc": 16, "color_primaries": 9, "colorspace": 9}, r"PQ \(smpte2084\).*zscale.*tonemap"),
        ({"color_trc": 18, "color_primaries": 9, "colorspace": 9}, r"HLG \(arib-std-b67\).*zscale.*tonemap"),
        ({"color_trc": 14, "color_primaries": 9, "colorspace": 9}, r"BT\.2020.*zscale"),
        ({"colorspace": 8}, "colour matrix is number 8"),
    ],
)
def test_colours_that_would_come_out_wrong_are_refused_by_name(tmp_path, tags, name):
    names = {"color_trc": "transfer", "color_primaries": "colorprim", "colorspace": "colormatrix"}
    words = {
        8: "YCgCo",
        9: "bt2020nc" if "color_trc" in tags else "",
        14: "bt2020-10",
        16: "smpte2084",
        18: "arib-std-b67",
    }
    stated = {names[tag]: "bt2020" if tag == "color_primaries" else words[value] for tag, value in tags.items()}
    options = {"x264-params": ":".join(f"{tag}={word}" for tag, word in stated.items())}
    path = encode(tmp_path / "clip.mp4", GREY, options=options)
    for look in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(BrokenVideo, match=name):
            look(path)


@pytest.mark.parametrize(("tag", "black", "white"), [({"color_range": 1}, 16, 235), ({}, 0, 255)])
def test_grey_has_a_range_too(tmp_path, tag, black, white):
    for value, shown in ((black, 0), (white, 255)):
        path = encode(tmp_path / "clip.mkv", [value], "gray", "ffv1", options={"level": "3"}, **tag)
        assert (read_frames(path, [1]) == shown).all()


@pytest.mark.parametrize("codec", ["gif", "png", "qtrle"])
def test_palettes_and_alpha_are_read_as_their_colours(tmp_path, codec):
    name, pixels = {"gif": ("a.gif", "rgb8"), "png": ("a.mov", "rgba"), "qtrle": ("b.mov", "argb")}[codec]
    with av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        for frame in quarters():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    info = probe(tmp_path / name)
    assert info.frames == 6 and info.fps == 10
    assert (
        np.abs(read_frames(tmp_path / name, [4], info.reader)[0].astype(int) - quarters()[4]).mean() < 15
    )  # gif dithers


def test_the_cover_of_a_song_is_no_clip(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=44100)
        cover = output.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        output.mux(sound.encode(silence))
        output.mux(sound.encode())
        output.mux(cover.encode(av.VideoFrame.from_ndarray(quarters()[0], format="rgb24")))
        output.mux(cover.encode())
    with pytest.raises(BrokenVideo, match="only a cover picture"):
        probe(tmp_path / "song.mp4")


def test_of_two_streams_the_one_that_players_show_is_read(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as output:
        streams = []
        for size in ((16, 16), (48, 64)):
            stream = output.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        streams[0].disposition, streams[1].disposition = 0, av.stream.Disposition.default
        for stream in streams:
            for _ in range(5):
                image = np.full((stream.height, stream.width, 3), 200, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(stream.encode())
    info = probe(tmp_path / "two.mkv")
    assert (
        (info.frames, info.height, info.width) == (5, 48, 64) == (5, *read_frames(tmp_path / "two.mkv", [4]).shape[1:3])
    )


@pytest.mark.skipif(not readers.HAS_DECORD, reason="decord has no wheel")
def test_decord_reads_what_needs_no_more_than_decoding(tmp_path):
    assert probe(encode(tmp_path / "clip.mp4", y_cb_cr(1), colorspace=1, color_range=1)).reader == "decord"


@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuv422p10le", "nv12", "yuv444p16le", "gbrp", "gray", "rgb24", "yuyv422"]
)
def test_what_is_stored_tells_pictures_apart_by_any_colour_and_by_nothing_else(pixels):
    """Odd sizes are filled up in memory with whatever was there."""
    grey = np.full((18, 38, 3), 120, np.uint8)
    other = grey.copy()
    other[10:12, 30:32] = 140, 120, 95
    pictures = Pictures(None)

    def stored(picture):
        rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = rgb.reformat(format=pixels, threads=1)  # swscale's threads write over each other's rows at 16 bits
        return [plane.tobytes() for plane in pictures.stored(frame)]

    assert stored(grey) == stored(grey) and stored(grey) != stored(other)


def test_damage_to_colours_alone_is_seen():
    rgb = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 120, np.uint8), format="rgb24")
    frame = rgb.reformat(format="yuv420p", threads=1)
    before = [plane.copy() for plane in Pictures(None).stored(frame)]
    frame.planes[2].update(bytes(len(bytes(frame.planes[2]))))
    luma, blue, red = (np.array_equal(*pair) for pair in zip(before, Pictures(None).stored(frame), strict=True))
    assert luma and blue and not red
