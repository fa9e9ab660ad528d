"""What a stage of the transformer is trained and validated on, from a run's latents and embeddings."""

from dataclasses import replace

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import Bucket, ConfigError, latent_size
from moviegen.data import embeddings, latents
from moviegen.data.clips import Clip, save_index
from moviegen.data.latents import clip_buckets, latent_file
from moviegen.device.world import World
from moviegen.programs import train_dit
from moviegen.programs.train_dit import Caches
from moviegen.runs.arrays import save_npz
from tests import small_runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A stage-2 run with clips of 40, 12 and 4 frames, landscape and portrait, and their latents and embeddings."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(latents, "check_origin", lambda folder, weights: None)
    params = config.load(
        "smoke", {"stages.2.dataset.frames": [8, 32], "stages.2.dataset.aspect_ratios": ["2:1", "1:2"]}
    )
    root = tmp_path / "smoke" / "data"
    sizes = [(40, 360, 640), (12, 640, 360), (4, 360, 640), (40, 640, 360), (40, 480, 640)]
    clips = [Clip(root / f"{i}.mp4", f"clip {i}", "mixkit", i, *size) for i, size in enumerate(sizes)]
    with runs.record(runs.find(params, "data")) as data:
        save_index(data.folder / "mixkit_train.csv", clips, root)
        save_index(data.folder / "mixkit_val.csv", clips[:3], root)
    with runs.record(runs.find(params, "latents")) as latents_run:
        for bucket, clip in clip_buckets(params, clips):
            place, path = int(clip.path.stem), latent_file(latents_run.folder, bucket, clip, root)
            mean = np.full((16, *latent_size(*bucket)), place, np.float32)  # clip i's is i
            save_npz(path, latent_mean=mean, latent_std=np.full_like(mean, 1e-3))
    small_runs.write_text(params, [clip.caption for clip in clips])
    with runs.record(runs.find(params, "tae-mixkit")):
        pass
    return runs.find(params, "stage2")


def training(run):
    return train_dit.training_batches(run, 2, Caches.of(run, 2), World())


def names(sets):
    return {str(bucket): [name.removesuffix(".mp4") for name in clips.names] for bucket, clips in sets.items()}


def test_a_stage_trains_on_each_clip_in_its_bucket_and_on_short_ones_as_images(run):
    made = training(run)
    assert names(made.images) == {"1x48x80": ["0", "2", "4"], "1x80x48": ["1", "3"]}
    assert names(made.videos) == {"8x80x48": ["1"], "32x48x80": ["0", "4"], "32x80x48": ["3"]}


def test_a_stage_validates_on_each_held_out_clip_in_its_bucket(run):
    made = train_dit.validation_batches(run, 2, Caches.of(run, 2), World())
    assert names(made.sets) == {"1x48x80": ["2"], "8x80x48": ["1"], "32x48x80": ["0"]}


def test_samples_are_those_of_their_clips_and_captions(run):
    made = training(run)
    for clip_set in (*made.images.values(), *made.videos.values()):
        places = np.array([len(clip_set.names) - 1, 0, len(clip_set.names) - 1])
        clips = [clip_set.names[place].removesuffix(".mp4") for place in places]
        samples = clip_set.read(places)
        assert [float(mean.min()) for mean in samples.mean] == [float(mean.max()) for mean in samples.mean]
        assert [int(mean.min()) for mean in samples.mean] == [int(clip) for clip in clips]
        captions = [f"clip {clip}" for clip in clips]
        expected = embeddings.read_embeddings(run.upstream("text").folder, captions, run.params.text)
        for array, other in zip(samples.text, expected, strict=True):
            np.testing.assert_array_equal(array, other)


def test_a_caption_without_embeddings_stops_a_stage_before_it_starts(run):
    embeddings.caption_file(run.upstream("text").folder, "metaclip", "clip 4").unlink()
    with pytest.raises(ConfigError, match=r"metaclip/\w{16}.npz is missing, the metaclip embedding of 'clip 4'"):
        training(run)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_latent_is_named(run, content):
    clips = training(run).videos[Bucket(32, 48, 80)]
    (path,) = (run.upstream("latents").folder / "32x48x80").glob("4-*.npz")
    path.write_bytes(content)
    message = rf"{path} is damaged .*: remove it and run `python -m moviegen precompute`"
    with pytest.raises(ConfigError, match=message):  # a stage does not start with it
        training(run)
    assert clips.names[1] == "4.mp4"
    clips.read(np.array([0]))
    with pytest.raises(ConfigError, match=message):  # damaged later
        clips.read(np.array([0, 1]))


def test_a_latent_of_another_shape_stops_a_stage_before_it_starts(run):
    (path,) = (run.upstream("latents").folder / "32x48x80").glob("4-*.npz")
    other = np.zeros((16, 3, 6, 10), np.float32)
    save_npz(path, latent_mean=other, latent_std=other)
    with pytest.raises(
        ConfigError, match=rf"{path} holds latents of shapes \(\(16, 3, 6, 10\), .*0-\w+.npz of \(\(16, 4,"
    ):
        training(run)


@pytest.mark.parametrize(("array", "message"), [("text_emb", r"\d+x31 values"), ("mask", r"a mask of shape \(31,\)")])
def test_an_embedding_of_another_shape_stops_a_stage_before_it_starts(run, array, message):
    path = embeddings.caption_file(run.upstream("text").folder, "byt5", "clip 4")
    with np.load(path) as file:
        arrays = dict(file)
    save_npz(path, **arrays | {array: arrays[array][..., :-1]})
    with pytest.raises(ConfigError, match=f"{path} holds {message}"):
        training(run)


def test_a_clip_set_aside_by_precompute_is_left_out_and_so_is_a_bucket_left_empty(run):
    for path in run.upstream("latents").folder.glob("8x80x48/*"):
        path.unlink()
    assert names(training(run).videos) == {"32x48x80": ["0", "4"], "32x80x48": ["3"]}


def test_no_latents_of_any_bucket_is_an_error_that_names_them(run):
    for path in run.upstream("latents").folder.glob("1x*/*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"has no latents of 1x48x80, 1x80x48 for any of 5 clips"):
        training(run)


def test_a_stage_of_videos_that_no_clip_fills_is_refused(run):
    params = config.load("smoke", {"stages.2.dataset.frames": [48, 56], "stages.2.model.max_size": [8, 12, 12]})
    with runs.record(runs.find(params, "latents")):
        pass
    with pytest.raises(ConfigError, match=r"none of 5 clips has a bucket of videos; .* \[48, 56\] .* has 40 frames"):
        training(runs.find(params, "stage2"))


def test_another_seed_is_another_order(run):
    one = training(run)
    other = replace(one, seed=one.seed + 1)
    orders = [[made(step, 0).names for step in range(1, 20)] for made in (one, other)]
    assert orders[0] != orders[1]
