"""The frames read are those asked for, counted in the order of showing, from every container, by every reader."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest

from moviegen.data import proofs, readers, streams
from moviegen.data.videos import BrokenVideo, probe, read_frames, read_windows
from tests.data.numbered import numbers, write, x264

FRAMES = 60
MPEG4_B = {"codec": "mpeg4", "options": {"bf": "2"}}
# file name -> how it is written, and the reader that probing must choose where decord is there ("decord" else "pyav")
KINDS = {
    "plain.mp4": ({"options": x264()}, "decord"),
    "plain.mkv": ({"options": x264()}, "decord"),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}, "decord"),
    "xvid.avi": ({"codec": "mpeg4"}, "pyav"),  # two decoders of MPEG-4 may differ by a level
    "one-key.mp4": ({"options": x264(keyint=1000), "gop": 1000}, "decord"),
    "long-gop.mkv": ({"options": x264(keyint=45), "gop": 45}, "decord"),
    "b-frames.avi": (MPEG4_B, "pyav"),  # decord: 6 to 15 for 40 to 49
    "h264.avi": ({"options": x264(bframes=0)}, "pyav"),
    "open-gop.mp4": ({"options": x264(open_gop=1, bframes=3)}, "pyav"),
    "open-gop.mkv": ({"options": x264(open_gop=1, bframes=3)}, "pyav"),
    "pyramid.flv": ({"options": x264(bframes=5, b_pyramid=2)}, "decord"),
    "h265.mp4": ({"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}}, "pyav"),
    "edit-list.mp4": ({"options": x264(), "times": lambda index: index + 5, "muxer": {"use_editlist": "1"}}, None),
    "fragments.mp4": ({"options": x264(), "muxer": {"movflags": "frag_keyframe+empty_moov"}}, "decord"),
    "uneven.mkv": ({"options": x264(), "times": lambda i: 33 * i + i % 3 * 5, "unit": Fraction(1, 1000)}, None),
    "gap.mkv": ({"options": x264(bframes=0), "times": lambda i: i if i < 30 else i + 50}, None),
    "intra-refresh.mp4": ({"options": x264(intra_refresh=1)}, "counted"),
    "intra-refresh.mkv": ({"options": x264(intra_refresh=1)}, "counted"),
    "b-h264.avi": ({"options": x264(bframes=3)}, "counted"),  # packets of H.264 in AVI state no times of showing
    "transport.mp4": ({"options": x264(), "container": "mpegts"}, "counted"),  # a seek lands behind; decord: 52 for 40
    "program.mpg": ({"codec": "mpeg2video", "options": {"bf": "2"}}, "counted"),
    "fields.ts": ({"options": x264(interlaced=1)}, "counted"),
    "raw.h264": ({"options": x264(), "container": "h264"}, "counted"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    settings, reader = KINDS[request.param]
    return write(tmp_path_factory.mktemp("kinds") / request.param, FRAMES, **settings), reader


def expected(reader):
    return "pyav" if reader == "decord" and not readers.HAS_DECORD else reader


def test_every_frame_is_read_in_any_order_and_window(kind):
    path, reader = kind
    info = probe(path)
    assert info.frames == FRAMES and info.fps == pytest.approx({"uneven.mkv": 59 / 1.957}.get(path.name, 25))
    assert reader is None or info.reader == expected(reader)
    order = np.random.default_rng(0).permutation(FRAMES).tolist()
    for chosen in {info.reader, "counted"}:
        assert numbers(read_frames(path, order, chosen)) == order
        for start in range(0, FRAMES - 4, 5):
            window = [*range(start, start + 3), start + 4]
            assert numbers(read_frames(path, window, chosen)) == window


def test_pixels_do_not_depend_on_the_reader(kind):
    path, _ = kind
    chosen = probe(path).reader
    indices = [0, 1, 11, 12, 13, 35, 36, FRAMES - 1]
    seen = [
        read_frames(path, indices, reader) for reader in {chosen, "pyav" if chosen == "decord" else chosen, "counted"}
    ]
    assert all(np.array_equal(frames, seen[0]) for frames in seen)


def test_where_decord_is_chosen_it_is_what_reads(kind, monkeypatch):
    path, _ = kind
    if (reader := probe(path).reader) != "decord":
        pytest.skip(f"read by {reader}")
    monkeypatch.setattr(readers, "by_counting", None)
    monkeypatch.setattr(readers, "by_seeking", None)
    assert numbers(read_frames(path, [40, 3], reader)) == [40, 3]


def test_frames_in_a_row_are_read_by_pyav_where_decord_is_as_exact(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", FRAMES, options=x264())
    monkeypatch.setattr(readers, "by_counting", None)
    monkeypatch.setattr(readers, "by_decord", None)
    assert numbers(read_frames(path, range(20, 30), probe(path).reader)) == list(range(20, 30))


def test_where_a_seek_is_chosen_frames_before_the_key_frame_are_not_decoded(kind, monkeypatch):
    path, _ = kind
    if (reader := probe(path).reader) == "counted" or len(streams.timeline(path).keys) == 1:
        pytest.skip(f"read by {reader}, or there is one key frame")
    monkeypatch.setattr(readers, "counted", None)
    monkeypatch.setattr(readers, "by_counting", None)
    assert numbers(read_frames(path, [57, 49], "pyav")) == [57, 49]


def test_frames_of_one_window_are_gone_when_the_next_is_asked_for(tmp_path):
    path, alive = write(tmp_path / "a.mp4", 60), []
    for frames in read_windows(path, [range(20), range(20, 40), range(40, 60)], "pyav"):
        alive.append(sum(type(one) is av.VideoFrame for one in gc.get_objects()))
        assert len(list(frames)) == 20
    assert max(alive) <= alive[0] + 2  # those that the decoder has at hand


@pytest.mark.skipif(not readers.HAS_DECORD, reason="decord has no wheel")
def test_decord_is_not_chosen_where_it_lies(kind):
    path, _ = kind
    info = probe(path)
    try:
        lies = any(
            numbers(list(readers.by_decord(path, range(start, start + 5)))) != list(range(start, start + 5))
            for start in range(0, FRAMES - 4, 5)
        )
    except RuntimeError:
        lies = True
    assert not (lies and info.reader == "decord")
    assert lies or path.name not in {"b-frames.avi", "h264.avi", "transport.mp4", "intra-refresh.mp4"}  # it does


def test_a_missing_frame_is_named_whoever_reads(kind):
    path, _ = kind
    for reader in {probe(path).reader, "counted"}:
        for index in (FRAMES, -1):
            with pytest.raises(BrokenVideo, match=rf"it has {FRAMES} frames: there is no frame {index}"):
                read_frames(path, [5, index], reader)


def test_a_verdict_on_another_file_still_reads_what_a_seek_does_not_find(tmp_path):
    path = write(tmp_path / "clip.ts", FRAMES, options=x264())
    assert numbers(read_frames(path, [50, 49], "pyav")) == [50, 49]


def test_frames_cut_away_by_an_edit_list_are_not_counted(tmp_path):
    path = write(tmp_path / "clip.mp4", FRAMES, options=x264(bframes=0), times=lambda index: index - 7)
    info = probe(path)
    assert info.frames == FRAMES - 7
    assert numbers(read_frames(path, range(info.frames), info.reader)) == list(range(7, FRAMES))


def test_a_change_of_size_inside_is_refused_by_frame(tmp_path):
    write(tmp_path / "a.ts", 20)
    with av.open(str(tmp_path / "b.ts"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for _ in range(20):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    (tmp_path / "both.mp4").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(BrokenVideo, match="frame 20 is 96x64, those before it are 128x48"):
        probe(tmp_path / "both.mp4")


def test_times_that_go_back_do_not_move_frames(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.ts", 20, options=x264())
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    info = probe(tmp_path / "both.ts")
    assert (info.frames, info.reader) == (40, "counted")
    assert numbers(read_frames(tmp_path / "both.ts", range(40), info.reader)) == [*range(20), *range(20)]


def test_where_a_stretch_was_cut_out_the_others_are_read(tmp_path):
    path = write(tmp_path / "cut.mkv", FRAMES, options=x264(bframes=0), keep=lambda packet: not 24 <= packet < 36)
    info = probe(path)
    assert numbers(read_frames(path, range(info.frames), info.reader)) == [*range(24), *range(36, FRAMES)]


def test_packets_lost_on_the_way_are_refused_by_frame(tmp_path):
    content = write(tmp_path / "whole.ts", FRAMES, options=x264(bframes=0)).read_bytes()
    middle = len(content) // 376 * 188  # a transport stream is packets of 188 bytes, which are counted
    (tmp_path / "lossy.ts").write_bytes(content[:middle] + content[middle + 3 * 188 :])
    with pytest.raises(BrokenVideo, match=r"after frame 2\d: packets were lost"):
        probe(tmp_path / "lossy.ts")


@pytest.mark.parametrize(
    ("rate", "name"), [(25, "a.mp4"), (Fraction(30000, 1001), "a.mkv"), (60, "a.avi"), (12, "a.ts")]
)
def test_a_constant_rate_is_the_container_s(tmp_path, rate, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    assert probe(write(tmp_path / name, 30, codec, unit=1 / Fraction(rate))).fps == float(rate)


def test_a_variable_rate_is_the_mean_of_what_is_decoded(tmp_path):
    times = [0, 33, 71, 99, 132, 170, 198, 1000]
    path = write(tmp_path / "a.mkv", 8, times=times.__getitem__, unit=Fraction(1, 1000))
    assert probe(path).fps == pytest.approx(7)


def test_a_file_name_may_look_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "12:30.mp4", 8)
    info = probe("12:30.mp4")
    assert numbers(read_frames("12:30.mp4", [7, 2], info.reader)) == [7, 2]


def test_windows_are_what_is_read_one_by_one_and_counted_frames_are_decoded_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ts", 60, container="mpegts")
    windows = [range(5, 20), [20, 22], range(40, 60)]
    expected = [list(window) for window in windows]
    whole, decoded = readers.counted, []

    def counted(*arguments):
        for number, frame in whole(*arguments):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(readers, "counted", counted)
    assert probe(path).reader == "counted"
    assert [numbers(frames) for frames in read_windows(path, windows)] == expected
    assert decoded == list(range(60))
    with pytest.raises(BrokenVideo, match="it has 60 frames: there is no frame 60"):
        [list(frames) for frames in read_windows(path, [[3], [59, 60]])]
    sought = write(tmp_path / "a.mp4", 60)
    assert [numbers(frames) for frames in read_windows(sought, windows, probe(sought).reader)] == expected


@pytest.mark.skipif(not readers.HAS_DECORD, reason="decord has no wheel for this machine")
@pytest.mark.parametrize("wrong", [0, 1, 11, 12, 23, 24, 35, 59])
def test_decord_is_not_taken_where_it_is_wrong_at_either_end_of_a_span(tmp_path, monkeypatch, wrong):
    path = write(tmp_path / "a.mp4", FRAMES, options=x264())
    assert probe(path).reader == "decord"
    right = proofs.each

    def each(reader, numbers):
        for number, picture in zip(numbers, right(reader, numbers), strict=True):
            yield picture ^ (number == wrong)

    monkeypatch.setattr(proofs, "each", each)
    assert probe(path).reader == "pyav"
