import weakref
from pathlib import Path

import numpy as np
import pytest

from moviegen.data import videos
from moviegen.data.videos import (
    BrokenVideo,
    VideoInfo,
    probe,
    read_frames,
    write_image,
    write_video,
)

CLIPS = Path(__file__).parents[2] / ".." / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real clips at {CLIPS}")
READERS = [*(["decord"] if videos.HAS_DECORD else []), "pyav", "counted"]
FORMATS = [("clip.mp4", "libx264"), ("clip.mkv", "libx264"), ("clip.avi", "mpeg4")]


def ramp(frames=24, height=48, width=64):
    """Frame t is grey 10 t: its number can be read off its brightness."""
    return np.broadcast_to((np.arange(frames) * 10).astype(np.uint8)[:, None, None, None], (frames, height, width, 3))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_written_frames_come_back_in_the_order_asked(tmp_path, reader, name, codec):
    write_video(tmp_path / name, ramp(), 25, codec)
    indices = [0, 23, 7, 8, 7]  # B-frames make the order of decoding differ from this and from that of presentation
    frames = read_frames(tmp_path / name, indices, reader)
    assert frames.dtype == np.uint8 and frames.shape == (5, 48, 64, 3)
    assert np.abs(frames.mean((1, 2, 3)) - 10 * np.array(indices)).max() < 3


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_probe_measures_what_was_written(tmp_path, name, codec):
    write_video(tmp_path / name, ramp(11), 12.5, codec)
    assert probe(tmp_path / name) == VideoInfo(11, 48, 64, 12.5)


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(tmp_path, name, codec):
    texture = np.random.default_rng(0).integers(0, 256, (160, 90, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    frames, written = np.stack([np.roll(texture, 3 * t, 1) for t in range(24)]), set()
    for _ in range(4):
        write_video(tmp_path / name, frames, 25, codec)
        written.add((tmp_path / name).read_bytes())
    assert len(written) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_frames_are_encoded_as_they_come_and_one_that_fails_leaves_no_file(tmp_path):
    """Frames are made one at a time: the one before is gone when the next is asked for."""
    held = []

    def each(stop):
        for number, frame in enumerate(ramp()):
            if number == stop:
                raise RuntimeError("no more")
            made = np.array(frame)
            held.append(weakref.ref(made))
            yield made
            del made
            assert sum(one() is not None for one in held) <= 2  # the first gives the size

    write_video(tmp_path / "array.mp4", ramp(), 25)
    write_video(tmp_path / "frames.mp4", each(None), 25)
    assert (tmp_path / "frames.mp4").read_bytes() == (tmp_path / "array.mp4").read_bytes()
    with pytest.raises(RuntimeError):
        write_video(tmp_path / "cut.mp4", each(20), 25)
    with pytest.raises(ValueError, match=r"must be uint8 \(48, 64, 3\), not uint8 \(32, 64, 3\)"):
        write_video(tmp_path / "cut.mp4", iter([ramp()[0], ramp(1, 32)[0]]), 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["array.mp4", "frames.mp4"]


def test_colours_survive(tmp_path):
    red_left_blue_right = np.zeros((4, 48, 64, 3), np.uint8)
    red_left_blue_right[:, :, :32, 0] = red_left_blue_right[:, :, 32:, 2] = 220
    write_video(tmp_path / "clip.mp4", red_left_blue_right, 25)
    frame = read_frames(tmp_path / "clip.mp4", [2])[0].astype(int)
    assert np.abs(frame[24, 10] - [220, 0, 0]).max() < 8 and np.abs(frame[24, 54] - [0, 0, 220]).max() < 8


def test_mp4_can_start_before_it_is_downloaded(tmp_path):
    write_video(tmp_path / "clip.mp4", ramp(), 25)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_avi_is_xvid(tmp_path):
    write_video(tmp_path / "clip.avi", ramp(), 25, "mpeg4")
    assert b"XVID" in (tmp_path / "clip.avi").read_bytes()[:512]


@pytest.mark.parametrize(
    ("frames", "codec", "message"),
    [
        (np.zeros((2, 47, 64, 3), np.uint8), "libx264", "64x47 is odd"),
        (np.zeros((2, 48, 64, 3), np.float32), "libx264", "float32"),
        (np.zeros((0, 48, 64, 3), np.uint8), "libx264", "at least one of them, not none"),
        (np.zeros((2, 48, 64, 3), np.uint8), "vp9", "vp9"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, codec, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "clip.mp4", frames, 25, codec)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), videos.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_image_is_lossless(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "frame.png", frame)
    assert np.array_equal(np.asarray(videos.Image.open(tmp_path / "frame.png")), frame)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("index", [24, -1])
def test_frame_out_of_range_is_named(tmp_path, reader, index):
    write_video(tmp_path / "clip.mp4", ramp(), 25)
    with pytest.raises(ValueError, match=rf"clip\.mp4: it has 24 frames: there is no frame {index}"):
        read_frames(tmp_path / "clip.mp4", [0, index], reader)


def test_no_frame_asked_for(tmp_path):
    with pytest.raises(ValueError, match="no frame of"):
        read_frames(tmp_path / "clip.mp4", [])


def broken_files(folder):
    """Name -> path of files that are not whole videos."""
    write_video(folder / "whole.mp4", ramp(), 25)
    write_video(folder / "whole.avi", np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8), 25, "mpeg4")
    mp4, avi = (folder / "whole.mp4").read_bytes(), (folder / "whole.avi").read_bytes()
    middle = len(avi) // 2
    damaged = avi[:middle] + bytes(byte ^ 0x5A for byte in avi[middle : middle + 400]) + avi[middle + 400 :]
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"not a video",
        "half.mp4": mp4[: len(mp4) * 3 // 4],
        "damaged.avi": damaged,
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in (*contents, "absent.mp4")]


def test_probe_refuses_broken_files_with_path_and_reason(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(BrokenVideo) as caught:
            probe(path)
        assert str(path) in str(caught.value) and caught.value.path == path and caught.value.reason


def test_reading_a_missing_or_foreign_file_is_a_broken_video(tmp_path):
    for path in broken_files(tmp_path):
        if path.name in ("empty.mp4", "text.mp4", "absent.mp4"):
            with pytest.raises(BrokenVideo, match=path.name):
                read_frames(path, [0])


def test_video_without_frames_is_broken(tmp_path):
    with videos.av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(BrokenVideo, match="0 frames"):
        probe(tmp_path / "none.avi")


def test_sound_alone_is_broken(tmp_path):
    with videos.av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = videos.av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(BrokenVideo, match="no video stream"):
        probe(tmp_path / "sound.mp4")


@needs_clips
@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("demo.mp4", VideoInfo(280, 256, 427, 28.0)),  # stored 340 wide, of pixels 64:51
        ("pancake.mkv", VideoInfo(310, 240, 426, 30.0)),
        ("part_0.mp4", VideoInfo(32, 256, 455, 30.0)),
        ("unordered.mov", VideoInfo(4, 50, 50, 32.0)),
    ],
)
def test_real_clips_read_the_same_with_every_reader(name, info):
    measured = probe(CLIPS / name)
    assert measured == info
    indices = [0, info.frames - 1, info.frames // 2, 3]
    first, *others = (read_frames(CLIPS / name, indices, reader) for reader in ("counted", "pyav", measured.reader))
    assert first.shape == (4, info.height, info.width, 3)
    assert all(np.array_equal(frames, first) for frames in others)


@needs_clips
def test_damage_inside_a_real_clip_is_found():
    with pytest.raises(BrokenVideo, match=r"corrupted\.mp4: after frame 27"):
        probe(CLIPS / "corrupted.mp4")
    assert read_frames(CLIPS / "corrupted.mp4", [0, 20]).shape == (2, 720, 1280, 3)  # before the damage
    with pytest.raises(BrokenVideo, match=r"corrupted\.mp4"):
        read_frames(CLIPS / "corrupted.mp4", [0, 40])
