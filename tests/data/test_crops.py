"""Views of clips for the autoencoder: random crops, damaged clips among them, and the fixed views of held-out ones."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moviegen.config import LRScheduler, TAEStage
from moviegen.data import videos
from moviegen.data.clips import Clip
from moviegen.data.crops import RandomCrops, centre_views, spread
from moviegen.data.quarantine import Quarantine

CORRUPTED = Path(__file__).parents[2] / ".." / "shared" / "clips" / "corrupted.mp4"
GREYS = [40 * index / 127.5 - 1 for index in range(6)]


def stage(**changes):
    values = {"steps": 8, "batch_size": 2, "size": (16, 16), "frames": 9, "validation_interval": 4}
    return TAEStage(**values | {"lr_scheduler": LRScheduler(), "image_ratio": 0.5} | changes)


@pytest.fixture
def clips(tmp_path):
    """Six clips, each of one grey of its own."""
    made = []
    for index in range(6):
        path = tmp_path / f"{index}.mp4"
        videos.write_video(path, np.full((12, 16, 24, 3), 40 * index, np.uint8), 12)
        made.append(Clip(path, frames=12, height=16, width=24))
    return made


def random_crops(clips, tmp_path, rank=0, ranks=1, seed=1, **changes):
    return RandomCrops(clips, stage(**changes), seed, rank, ranks, Quarantine(tmp_path / "quarantine.csv"))


def drawn(crops, step, micro=0, seed=0):
    return crops(step, micro, np.random.default_rng(seed))


# --- random crops ---


def test_crops_follow_from_their_step_and_the_generator_alone(tmp_path):
    path = tmp_path / "noise.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    videos.write_video(path, noise, 12)
    clips = [Clip(path, frames=12, height=32, width=48)] * 2
    first, again = random_crops(clips, tmp_path, frames=1), random_crops(clips, tmp_path, frames=1)
    for step in (5, 1, 5):
        np.testing.assert_array_equal(drawn(first, step)[0], drawn(again, step)[0])
    views = [drawn(first, 1, seed=seed)[0][0] for seed in range(4)]  # other frames, other places
    assert all(not np.array_equal(one, other) for at, one in enumerate(views) for other in views[:at])


def test_views_are_of_the_stages_size_and_of_the_clips_they_name(clips, tmp_path):
    crops, lengths = random_crops(clips, tmp_path, size=(16, 8)), set()
    for step in range(1, 9):
        views, names = drawn(crops, step)
        assert (views.shape[:2], views.shape[3:], views.dtype) == ((2, 3), (16, 8), np.float32)
        assert views.shape[2] == (1 if crops.sees_images(step, 0) else 9)
        lengths.add(views.shape[2])
        np.testing.assert_allclose(views.mean((1, 2, 3, 4)), [GREYS[int(name[0])] for name in names], atol=0.03)
    assert lengths == {1, 9}


def test_a_crop_is_a_part_of_the_picture(tmp_path):
    path = tmp_path / "ramp.mp4"
    ramp = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[:, None], (12, 32, 48, 3))  # columns grow lighter
    videos.write_video(path, np.ascontiguousarray(ramp), 12)
    crops = random_crops([Clip(path, frames=12, height=32, width=48)] * 2, tmp_path, frames=1)
    columns = [view[0, 0].mean(0) for seed in range(8) for view in drawn(crops, 1, seed=seed)[0]]
    rises = [abs(column[-1] - column[0]) for column in columns]
    assert max(rises) < 1.85  # the whole picture's is 235 of 127.5
    assert np.ptp(rises) > 0.1


def test_images_come_in_their_ratio(clips, tmp_path):
    crops = random_crops(clips, tmp_path, image_ratio=0.2)
    share = np.mean([crops.sees_images(step, 0) for step in range(1, 1001)])
    assert share == pytest.approx(0.2, abs=0.045)  # 3.5 standard deviations
    assert {crops.sees_images(1, micro) for micro in range(30)} == {True, False}


def test_a_stage_of_single_frames_sees_images_only(clips, tmp_path):
    crops = random_crops(clips, tmp_path, frames=1, image_ratio=0.0)
    assert all(crops.sees_images(step, 0) for step in range(1, 9))
    assert not any(random_crops(clips, tmp_path, image_ratio=0.0).sees_images(step, 0) for step in range(1, 9))


def test_ranks_see_the_same_medium_and_other_clips(clips, tmp_path):
    for step in range(1, 9):
        ranks = [random_crops(clips, tmp_path, rank, 3) for rank in range(3)]
        assert len({crops.sees_images(step, 0) for crops in ranks}) == 1
        views = [drawn(crops, step, seed=rank) for rank, crops in enumerate(ranks)]
        assert len({images.shape for images, _ in views}) == 1
        assert sorted(name for _, names in views for name in names) == [f"{i}.mp4" for i in range(6)]


@pytest.mark.skipif(not CORRUPTED.exists(), reason="../shared/clips is not here")
def test_a_clip_that_proves_damaged_in_the_middle_of_training_is_replaced_and_training_goes_on(clips, tmp_path):
    clips[3] = replace(clips[3], frames=50)  # so says its header; frames past the 28th do not decode
    shutil.copy(CORRUPTED, clips[3].path)
    crops, rng = random_crops(clips, tmp_path, image_ratio=0.0), np.random.default_rng(0)
    with pytest.warns(UserWarning, match="3.mp4 is set aside"):
        epochs = [
            sorted(name for step in (1, 2, 3) for name in crops(3 * epoch + step, 0, rng)[1]) for epoch in range(8)
        ]
    whole, without = [f"{i}.mp4" for i in range(6)], [f"{i}.mp4" for i in (0, 1, 2, 4, 4, 5)]  # the next clip twice
    met = epochs.index(without)
    assert epochs == [whole] * met + [without] * (8 - met)
    assert str(clips[3].path) in (tmp_path / "quarantine.csv").read_text()


def test_a_truncated_clip_is_replaced(clips, tmp_path):
    clips[0].path.write_bytes(clips[0].path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="set aside"):
        names = [name for step in (1, 2, 3) for name in drawn(random_crops(clips, tmp_path), step)[1]]
    assert sorted(names) == ["1.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4"]


# --- fixed views ---


def test_centre_views_are_the_clips_themselves(clips, tmp_path):
    views = centre_views(clips, 3, (16, 16), Quarantine(tmp_path / "quarantine.csv"))
    assert views.shape == (6, 3, 3, 16, 16)
    np.testing.assert_allclose(views.mean((1, 2, 3, 4)), GREYS, atol=0.03)


def test_some_are_spread_and_at_most_sixteen():
    assert spread(list(range(5))) == list(range(5))
    assert len(spread(list(range(100)))) == 16
    assert spread(list(range(64))) == list(range(0, 64, 4))


@pytest.mark.parametrize(("count", "most"), [(31, 16), (40, 16), (17, 16), (5, 2), (3, 1)])
def test_the_gaps_of_a_spread_differ_by_one_at_most(count, most):
    gaps = np.diff([*spread(list(range(count)), most), count])  # the last gap: what is left behind the last
    assert len(gaps) == most
    assert gaps.max() - gaps.min() <= 1
