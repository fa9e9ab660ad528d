"""What TAE training sees."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moviegen.config import ConfigError, LRScheduler, TAEConfig, TAEStage
from moviegen.data import videos
from moviegen.data.datasets import Clip
from moviegen.data.quarantine import Quarantine
from moviegen.device.collectives import World
from moviegen.train.tae_batches import Batches, centre_views, check_enough, some

CORRUPTED = Path(__file__).parents[2] / ".." / "shared" / "clips" / "corrupted.mp4"
RNG = np.random.default_rng(0)


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


ALONE = World()


def batches(clips, tmp_path, world=ALONE, seed=1, **changes):
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    return Batches(clips, stage(**changes), TAEConfig(), seed, world, quarantine)


def test_a_batch_follows_from_its_step_alone(clips, tmp_path):
    first, again = batches(clips, tmp_path), batches(clips, tmp_path)
    for step in (5, 1, 5):
        one, other = first(step, 0), again(step, 0)
        assert (one.media, one.names) == (other.media, other.names)
        for a, b in zip(one.inputs, other.inputs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first(1, 0).inputs[1][:, :, :1], first(1, 1).inputs[1][:, :, :1])


def test_images_and_videos_come_in_their_ratio_with_noise_of_the_latents_shape(clips, tmp_path):
    made = [batches(clips, tmp_path, image_ratio=0.2)(step, 0) for step in range(1, 201)]
    share = np.mean([batch.media == "image" for batch in made])
    assert share == pytest.approx(0.2, abs=0.1)  # 3.5 standard deviations
    for batch in made[:20]:
        frames, length = (1, 1) if batch.media == "image" else (9, 2)
        assert [array.shape for array in batch.inputs] == [(2, 3, frames, 16, 16), (2, 16, length, 2, 2)]
        assert all(array.dtype == np.float32 for array in batch.inputs)


def test_a_stage_of_single_frames_sees_images_only(clips, tmp_path):
    assert {batches(clips, tmp_path, frames=1, image_ratio=0.0)(step, 0).media for step in range(1, 9)} == {"image"}


def test_ranks_see_the_same_medium_and_other_clips(clips, tmp_path):
    for step in range(1, 9):
        ranks = [batches(clips, tmp_path, World(rank, 3), batch_size=2)(step, 0) for rank in range(3)]
        assert len({batch.media for batch in ranks}) == 1
        assert sorted(name for batch in ranks for name in batch.names) == [f"{i}.mp4" for i in range(6)]


@pytest.mark.skipif(not CORRUPTED.exists(), reason="../shared/clips is not here")
def test_a_clip_that_proves_damaged_in_the_middle_of_training_is_replaced_and_training_goes_on(clips, tmp_path):
    clips[3] = replace(clips[3], frames=50)  # so says its header; frames past the 28th do not decode
    shutil.copy(CORRUPTED, clips[3].path)
    make = batches(clips, tmp_path, image_ratio=0.0)
    with pytest.warns(UserWarning, match="3.mp4 is set aside"):
        epochs = [sorted(name for step in (1, 2, 3) for name in make(3 * epoch + step, 0).names) for epoch in range(8)]
    whole, without = [f"{i}.mp4" for i in range(6)], [f"{i}.mp4" for i in (0, 1, 2, 4, 4, 5)]  # the next clip twice
    met = epochs.index(without)
    assert epochs == [whole] * met + [without] * (8 - met)
    assert str(clips[3].path) in (tmp_path / "quarantine.csv").read_text()


def test_a_truncated_clip_is_replaced(clips, tmp_path):
    clips[0].path.write_bytes(clips[0].path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="set aside"):
        names = [name for step in (1, 2, 3) for name in batches(clips, tmp_path)(step, 0).names]
    assert sorted(names) == ["1.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4"]


def test_centre_views_are_the_clips_themselves(clips, tmp_path):
    views = centre_views(clips, 3, (16, 16), Quarantine(tmp_path / "quarantine.csv"))
    assert views.shape == (6, 3, 3, 16, 16)
    greys = [40 * index / 127.5 - 1 for index in range(6)]
    np.testing.assert_allclose(views.mean((1, 2, 3, 4)), greys, atol=0.03)


def test_some_are_spread_and_at_most_sixteen():
    assert some(list(range(5))) == list(range(5))
    assert len(some(list(range(100)))) == 16
    assert some(list(range(64))) == list(range(0, 64, 4))


def test_fewer_clips_than_workers_are_refused(clips):
    check_enough(clips, World(0, 6), "training")
    with pytest.raises(ConfigError, match="6 training clips for 8 workers"):
        check_enough(clips, World(0, 8), "training")


def test_every_rank_draws_from_a_stream_of_its_own(clips, tmp_path, monkeypatch):
    drawn, real = set(), np.random.default_rng

    def noted(seeds):
        if len(seeds) > 2:  # of a step and micro-batch
            drawn.add(tuple(np.random.SeedSequence(seeds).generate_state(4)))
        return real(seeds)

    monkeypatch.setattr("moviegen.train.tae_batches.np.random.default_rng", noted)
    for rank in range(3):
        makes = batches(clips, tmp_path, World(rank, 3))
        makes._shared(1, 0)
        makes(1, 0)
    assert len(drawn) == 1 + 3  # the one that all share, and each rank's
