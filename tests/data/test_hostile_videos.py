"""Files that lie about their size, and good files made bad: refused with a reason, or read as they were counted."""

import itertools
import json
import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from moviegen.data import proofs, streams
from moviegen.data.videos import BrokenVideo, probe, read_frames
from tests.data.numbered import write, x264
from tests.mutations import mutations

HUGE = 50_000
KINDS = {
    "a.mp4": {"options": x264()},
    "a.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "a.mkv": {"options": x264()},
    "a.ts": {"options": x264()},
    "a.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "a.mpg": {"codec": "mpeg2video"},
}
# Probes every file named, says what came out, and first which is next: a crash is that one's.
CHILD = """
import json, sys
import numpy as np
from moviegen.data.videos import BrokenVideo, probe, read_frames
for path in sys.argv[1:]:
    print(json.dumps({"path": path}), flush=True)
    try:
        info = probe(path)
    except BrokenVideo as error:
        print(json.dumps({"reason": error.reason}), flush=True)
        continue
    frames = read_frames(path, range(info.frames), info.reader)
    same = np.array_equal(frames, read_frames(path, range(info.frames)))
    print(json.dumps({"right": frames.shape == (info.frames, info.height, info.width, 3) and same}), flush=True)
"""


def test_damaged_files_are_refused_or_read_as_counted(tmp_path):
    paths = []
    for name, settings in KINDS.items():
        content = write(tmp_path / name, 24, **settings).read_bytes()
        for index, damaged in enumerate(mutations(content, 12)):
            paths.append(tmp_path / f"{index}-{name}")
            paths[-1].write_bytes(damaged)
    child = subprocess.run(
        (sys.executable, "-c", CHILD, *map(str, paths)), capture_output=True, text=True, timeout=120, check=False
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"{lines[-1]}: {child.stderr}"
    results = lines[1::2]
    assert len(results) == len(paths) and all(result.get("reason") or result.get("right") for result in results)
    assert {"reason", "right"} <= {key for result in results for key in result}  # some are still whole


def test_a_recording_that_lacks_its_first_key_frame_is_refused_where_the_decoder_guesses_it(tmp_path):
    whole, later = write(tmp_path / "whole.avi", 40, codec="mpeg4"), tmp_path / "later.avi"
    with av.open(str(whole)) as source, av.open(str(later), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 5 and packet.size:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(BrokenVideo, match="begins after its first key frame"):
        probe(later)
    with pytest.raises(BrokenVideo, match="begins after its first key frame"):
        read_frames(later, [2])


def test_a_damaged_jpeg_is_refused_wherever_its_picture_breaks_off(tmp_path):
    path = write(tmp_path / "a.avi", 20, codec="mjpeg", pixels="yuvj420p")
    content = bytearray(path.read_bytes())
    starts = [at for at in range(len(content)) if content[at : at + 3] == b"\xff\xda\0"]  # of each picture's data
    content[starts[7] + 40 : starts[7] + 80] = b"\x55" * 40
    path.write_bytes(content)
    with pytest.raises(BrokenVideo, match="after frame 6"):
        probe(path)


def test_a_file_that_decodes_otherwise_each_time_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ts", 20, container="mpegts")
    assert probe(path).reader == "counted"
    different = itertools.count()
    monkeypatch.setattr(proofs, "digest", lambda *planes: next(different))
    with pytest.raises(BrokenVideo, match="come out otherwise"):
        probe(path)


def test_a_stream_that_appears_on_the_way_is_no_end():
    class Container:
        """As PyAV is at the end of such a file."""

        def demux(self, stream):
            yield from "ab"
            raise IndexError

    assert list(streams.packets(Container(), None)) == ["a", "b"]


def patched(path, place, content):
    """Overwrites what follows the first `place`."""
    data = bytearray(path.read_bytes())
    at = data.find(place) + len(place)
    assert at >= len(place)
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def test_a_header_of_huge_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 256, 320, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((256, 320, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    path = patched(tmp_path / "a.mkv", b"\xb0\x82", struct.pack(">H", HUGE))  # EBML: PixelWidth, PixelHeight
    patched(path, b"\xba\x82", struct.pack(">H", HUGE))
    for look in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(BrokenVideo, match=f"size of its frames, or one of more than {streams.MAX_PIXELS} pixels"):
            look(path)


def test_huge_frames_behind_a_modest_header_are_refused(tmp_path):
    path = write(tmp_path / "a.avi", 4, "mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    start = data.find(b"\xff\xc0")  # JPEG: start of frame
    data[start + 5 : start + 9] = struct.pack(">HH", HUGE, HUGE)
    path.write_bytes(data)
    with pytest.raises(BrokenVideo, match=r"a\.avi"):
        probe(path)


def test_two_thousand_million_frames_are_refused_by_number(tmp_path):
    claimed = 2**31 - 1
    avi = write(tmp_path / "a.avi", 4, "mpeg4")
    data = bytearray(avi.read_bytes())
    at = data.find(b"strh") + 8 + 32  # dwLength
    data[at : at + 4] = struct.pack("<I", claimed)
    avi.write_bytes(data)
    mp4 = patched(write(tmp_path / "a.mp4", 4), b"stts", struct.pack(">III", 0, 1, claimed))
    for path in (avi, mp4):
        with pytest.raises(BrokenVideo, match=rf"{claimed} frames: more than {streams.MAX_FRAMES}"):
            probe(path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MAX_FRAMES", 10, "frames: more than 10"), ("MAX_DECODED", 9 * 48 * 128, "frames of 128x48 are more than 55296")],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])  # of which one states the number of frames
def test_too_many_frames_are_refused(tmp_path, monkeypatch, limit, value, message, name):
    path = write(tmp_path / name, 12)
    probe(path)
    monkeypatch.setattr(streams, limit, value)
    streams._timeline.cache_clear()
    with pytest.raises(BrokenVideo, match=message):
        probe(path)


def test_pixels_that_are_absurdly_wide_are_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 2048, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(900, 1)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((2048, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    for look in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(BrokenVideo, match=rf"shown as 57600x2048 .*more than {streams.MAX_PIXELS} pixels"):
            look(path)


def test_a_playlist_that_is_named_like_a_clip_fetches_nothing(tmp_path):
    for name, content in (
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile http://127.0.0.1:9/a.ts\n"),
        ("pipe.mp4", "#EXTM3U\n#EXTINF:1,\npipe:0\n#EXT-X-ENDLIST\n"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(BrokenVideo, match=name):
            probe(tmp_path / name)


def test_a_title_in_an_old_code_page_is_no_reason_to_refuse_the_pictures(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as output:
        output.metadata["title"] = "cafe-cafe"
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    content = (tmp_path / "a.avi").read_bytes()
    assert b"cafe-cafe" in content
    (tmp_path / "a.avi").write_bytes(content.replace(b"cafe-cafe", "café-café".encode("cp1252")))
    assert probe(tmp_path / "a.avi").frames == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4", "absent.mp4"):
        for look in (probe, lambda path: read_frames(path, [0]), lambda path: read_frames(path, [0], "pyav")):
            with pytest.raises(BrokenVideo, match="no such file"):
                look(tmp_path / name)
