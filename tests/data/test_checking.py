"""Which clips are sound, and at which rate their frames are taken."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from moviegen.data.checking import at_rate, check_clips, rate_notes, rates
from moviegen.data.clips import Clip, read
from moviegen.data.measuring import Unusable
from moviegen.data.videos import Reader, VideoInfo, write_video

READER = get_args(Reader)[0]


def clip(fps, name="a", **known):
    return Clip(Path(f"{name}.mp4"), fps=fps, **known)


def test_sound_clips_are_filled_in_and_the_others_are_told_by_file():
    paths = [Path(f"{name}.mp4") for name in ("long", "short", "broken")]
    verdicts = {
        paths[0]: VideoInfo(30, 48, 64, 25.0, READER),
        paths[1]: VideoInfo(15, 48, 64, 25.0),
        paths[2]: Unusable("cannot be decoded", "half a file"),
    }
    clips = [Clip(path, caption) for caption in ("one", "two") for path in paths]  # each has two captions
    good, bad = check_clips(clips, verdicts, min_frames=16)
    known = {"frames": 30, "height": 48, "width": 64, "fps": 25.0, "reader": READER}
    assert good == [Clip(paths[0], caption, **known) for caption in ("one", "two")]
    assert bad == {
        paths[1]: Unusable("too short", "15 frames, the recipe needs 16"),
        paths[2]: Unusable("cannot be decoded", "half a file"),
    }
    assert check_clips(clips[:1], verdicts, min_frames=30)[0] and not check_clips(clips[:1], verdicts, min_frames=31)[0]


@pytest.mark.parametrize(
    ("fps", "target", "stride", "left", "rate"),
    [
        (60.0, 12, 5, 20, 12.0),
        (60.0, None, 1, 100, 60.0),
        (30.0, 12, 2, 50, 15.0),
        (29.97, 30, 1, 100, 29.97),
        (25.0, 8, 3, 34, 25 / 3),  # frames 0, 3, ... 99
        (12.0, 24, 1, 100, 12.0),
        (0.0, 12, 1, 100, 0.0),
    ],
)
def test_a_faster_clip_is_taken_at_the_whole_stride_that_comes_nearest(fps, target, stride, left, rate):
    taken = at_rate(clip(fps, frames=100), target)
    assert (taken.stride, taken.frames, taken.fps) == (stride, left, pytest.approx(rate))
    assert taken.frames == len(range(0, 100, stride))


def test_length_is_counted_at_the_rate_taken():
    verdicts = {Path("a.mp4"): VideoInfo(40, 48, 64, 60.0)}
    clips = [Clip(Path("a.mp4"))]
    assert check_clips(clips, verdicts, 8, fps=12)[0][0].frames == 8
    (why,) = check_clips(clips, verdicts, 9, fps=12)[1].values()
    assert why == Unusable("too short", "8 frames of 40 at a stride of 5 (data.fps), the recipe needs 9")


def test_two_films_of_one_movement_look_alike_at_one_rate(tmp_path):
    """A grey that rises by 4 levels in a 12th of a second, filmed at 12 and at 60 frames a second."""
    taken = {}
    for fps, frames in ((12, 20), (60, 100)):
        path = tmp_path / f"{fps}.mp4"
        greys = (40 + np.arange(frames) * 48 / fps).astype(np.uint8)
        write_video(path, np.broadcast_to(greys[:, None, None, None], (frames, 16, 16, 3)).copy(), fps)
        (sound,), _ = check_clips([Clip(path)], {path: VideoInfo(frames, 16, 16, float(fps))}, 16, fps=12)
        taken[fps] = read(sound, range(sound.frames)).mean((1, 2, 3))
    np.testing.assert_allclose(taken[12], taken[60], atol=2)


def test_lists_of_uneven_rates_are_told_with_the_parameter_that_mends_them():
    mixed = [clip(12.0), clip(25.0), clip(60.0)]
    (note,) = rate_notes("train", mixed, None)
    assert "train" in note and "12 to 60" in note and "data.fps 12" in note
    evened = [at_rate(one, 12) for one in mixed]
    assert rate_notes("train", evened, 12) == []
    assert rate_notes("train", [clip(25.0), clip(50.0)], None) == []
    assert rate_notes("train", [], None) == []


def test_clips_that_keep_their_own_rate_are_counted():
    clips = [at_rate(one, 24) for one in (clip(60.0), clip(12.0), clip(15.0), clip(23.976), clip(0.0))]
    slower, unknown = rate_notes("ucf101", clips, 24)
    assert "2 clips are slower than data.fps 24" in slower
    assert "1 clips state no rate" in unknown
    assert rate_notes("ucf101", [clip(0.0)] * 3, None) == []  # nothing that it could differ from


def test_the_rates_of_a_list_are_those_that_are_stated():
    assert rates([clip(30.0), clip(12.0), clip(0.0), clip(60.0)]) == [12, 30, 60]
    assert rates([clip(0.0)]) == []
