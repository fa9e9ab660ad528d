"""Clips in the formats that suffixes name, read back by other libraries."""

import av
import numpy as np
import pytest
from PIL import Image

from moviegen.config import ConfigError
from moviegen.data.formats import clip_writer


def write(path, frames, fps):
    clip_writer(path, len(frames))(path, frames, fps)


def clip(frames=5):
    """Frames that differ, of few colours: a GIF holds them as they are."""
    blocks = np.random.default_rng(0).integers(0, 2, (frames, 4, 6, 3), dtype=np.uint8) * 255
    return blocks.repeat(8, 1).repeat(8, 2)


def test_mp4_holds_every_frame(tmp_path):
    write(tmp_path / "000.mp4", clip(), 12)
    with av.open(str(tmp_path / "000.mp4")) as file:
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
        assert file.streams.video[0].average_rate == 12
    assert read.shape == (5, 32, 48, 3)
    assert np.abs(read.astype(int) - clip()).mean() < 30  # 4:2:0


@pytest.mark.parametrize(("fps", "milliseconds"), [(10, 100), (12, 80), (25, 40)])
def test_gif_holds_every_frame_for_its_time_and_repeats(tmp_path, fps, milliseconds):
    write(tmp_path / "000.gif", clip(), fps)
    with Image.open(tmp_path / "000.gif") as image:
        assert image.n_frames == 5
        assert image.info["loop"] == 0
        for number, frame in enumerate(clip()):
            image.seek(number)
            assert image.info["duration"] == milliseconds
            assert np.array_equal(np.asarray(image.convert("RGB")), frame)
    assert [path.name for path in tmp_path.iterdir()] == ["000.gif"]


def test_png_is_lossless(tmp_path):
    write(tmp_path / "000.png", clip(1), 12)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "000.png")), clip(1)[0])


def test_a_folder_holds_the_frames_of_the_last_clip_alone(tmp_path):
    write(tmp_path / "000", clip(7), 12)
    (tmp_path / "000" / "notes.png").write_bytes(b"mine")
    write(tmp_path / "000", clip(5), 12)
    names = sorted(path.name for path in (tmp_path / "000").iterdir())
    assert names == [f"frame-{number:04d}.png" for number in range(5)] + ["notes.png"]
    for name, frame in zip(names, clip(5), strict=False):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "000" / name)), frame)


@pytest.mark.parametrize("name", ["000.avi", "000.webp", "my.clips"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"is not one of \.mp4, \.gif, \.png") as refusal:
        write(tmp_path / name, clip(), 12)
    assert name in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_png_of_several_frames_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"000\.png: a \.png holds one frame, not 5"):
        write(tmp_path / "000.png", clip(), 12)
    assert not list(tmp_path.iterdir())
