"""Latents of every clip: buckets, shapes, tiles, shares of ranks, resumption, and whose TAE made them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, precompute, runs
from moviegen.config import ConfigError, TAEConfig
from moviegen.data import videos
from moviegen.data.buckets import Bucket
from moviegen.data.datasets import Clip, save_index
from moviegen.device.collectives import World
from moviegen.tae import TAE
from moviegen.tae.model import Encode
from moviegen.tae.weights import load_tae, save_tae

SMALL = TAEConfig(
    base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2, scaling_factor=2.0,
    shift_factor=0.5,
)  # fmt: skip
BUCKET = Bucket(40, 16, 32)
# every stage sees videos of this one shape
ONE_BUCKET = {
    "dataset.size": [16, 32],
    "dataset.frames": 40,
    "model.max_size": [5, 1, 2],
    "dataloader.batch_size.video_batch_size": 1,
    "dataloader.image_ratio": 0.0,
    "sample.frames": 1,
    "sample.size": [16, 32],
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A latents run whose data and TAE are there: five clips of 44 frames, one bucket of 40."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke", ONE_BUCKET)
    root = tmp_path / "smoke" / "data"
    clips = []
    for index in range(5):
        path = root / "mixkit" / f"{index}.mp4"
        frames = np.random.default_rng(index).integers(0, 256, (44, 16, 32, 3), dtype=np.uint8)
        videos.write_video(path, frames, 12)
        clips.append(Clip(path, caption=f"clip {index}", label="mixkit", group=index, frames=44, height=16, width=32))
    with runs.record(runs.find(params, "data")) as data:
        save_index(data.folder / "mixkit_train.csv", clips[:4], root)
        save_index(data.folder / "mixkit_val.csv", clips[4:], root)
    with runs.record(runs.find(params, "tae-mixkit")) as tae:
        save_tae(tae.folder / "tae.safetensors", TAE(SMALL))
    return runs.find(params, "latents")


def latents(run):
    return sorted(path.relative_to(run.folder).as_posix() for path in run.folder.glob("*/*.npz"))


def test_latents_of_a_long_clip_are_those_of_its_tiles(run):
    precompute.precompute(run, World())
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["latents"] == {"40x16x32": [16, 5, 2, 4]}
    assert (summary["clips"], summary["set_aside"]) == (5, 0)
    assert len(latents(run)) == len((run.folder / "index.csv").read_text().splitlines()) - 1 == 5
    tae = load_tae(run.upstream("tae-mixkit").folder / "tae.safetensors")
    clip = Clip(precompute.data_folder(run.params) / "mixkit" / "2.mp4", frames=44)
    mean, std = precompute.load_latent(precompute.latent_file(run.folder, BUCKET, clip, clip.path.parents[1]))
    import mindspore as ms

    frames = videos.read_frames(clip.path, range(2, 42))  # the centre 40 of 44
    for start, stop, part in ((0, 32, slice(0, 4)), (32, 40, slice(4, 5))):
        tile = videos.resize_and_crop(frames[start:stop], 16, 32)[None]
        wanted, logvar = (moment.asnumpy()[0] for moment in Encode(tae)(ms.Tensor(tile)))
        np.testing.assert_allclose(mean[:, part], (wanted - 0.5) * 2, atol=1e-5)
        np.testing.assert_allclose(std[:, part], np.exp(0.5 * logvar) * 2, atol=1e-6)


@pytest.fixture
def quick(monkeypatch):
    """Encoding without a network; returns the clips that were encoded."""
    encoded = []

    def encode(network, tae, clip, bucket):
        videos.read_frames(clip.path, [0])
        encoded.append(clip.path.stem)
        return np.zeros((16, 5, 2, 4), np.float32), np.ones((16, 5, 2, 4), np.float32)

    monkeypatch.setattr(precompute, "encode", encode)
    return encoded


def share(run, rank, size):
    clips = precompute.load_split(run.upstream("data"), "mixkit_train")
    clips += precompute.load_split(run.upstream("data"), "mixkit_val")
    precompute.encode_share(run, clips, run.upstream("tae-mixkit").folder / "tae.safetensors", World(rank, size))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_ranks_share_the_clips(size, run, quick):
    for rank in range(size):
        share(run, rank, size)
    assert sorted(quick) == list("01234")
    assert len(latents(run)) == 5


def test_a_run_that_was_cut_goes_on_where_it_was(run, quick):
    precompute.precompute(run, World())
    lost = run.folder / latents(run)[3]
    lost.unlink()
    quick.clear()
    precompute.precompute(run, World())
    assert len(quick) == 1
    assert lost.exists()


def test_a_damaged_clip_is_set_aside_and_counted(run, quick):
    broken = precompute.data_folder(run.params) / "mixkit" / "1.mp4"
    broken.write_bytes(b"no video")
    with pytest.warns(UserWarning, match=r"1.mp4 is set aside"):
        precompute.precompute(run, World())
    assert sorted(quick) == list("0234")
    assert json.loads((run.folder / "summary.json").read_text())["set_aside"] == 1


def test_latents_of_another_tae_are_refused(run, quick, tmp_path):
    precompute.precompute(run, World())
    weights = run.upstream("tae-mixkit").folder / "tae.safetensors"
    precompute.check_origin(run.folder, weights)
    other = TAE(SMALL)
    for parameter in other.get_parameters():
        parameter.set_data(parameter + 1)
    save_tae(tmp_path / "other.safetensors", other)
    with pytest.raises(ConfigError, match="made by a TAE with checksum"):
        precompute.check_origin(run.folder, tmp_path / "other.safetensors")
    (run.folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match="no finished latents"):
        precompute.check_origin(run.folder, weights)


def test_clips_of_one_name_in_two_folders_have_files_of_their_own(tmp_path):
    clips = [Clip(tmp_path / folder / "a.mp4") for folder in ("one", "two")]
    files = {precompute.latent_file(tmp_path, BUCKET, clip, tmp_path) for clip in clips}
    assert len(files) == 2
    moved = Clip(tmp_path / "elsewhere" / "one" / "a.mp4")
    assert precompute.latent_file(tmp_path, BUCKET, moved, tmp_path / "elsewhere") in files


# --- buckets ---


SIZES = [(40, 360, 640), (12, 640, 360), (4, 480, 480), (40, 500, 480)]
CLIPS = [Clip(Path(f"/data/{i}.mp4"), frames=t, height=h, width=w) for i, (t, h, w) in enumerate(SIZES)]
SEVERAL = {"stages.2.dataset.frames": [8, 32], "stages.2.dataset.aspect_ratios": ["16:9", "1:1", "9:16"]}


def encoded(params):
    found = {}
    for bucket, clip in precompute.work(params, CLIPS):
        found.setdefault(str(bucket), []).append(clip.path.stem)
    return {bucket: sorted(names) for bucket, names in found.items()}


def test_each_clip_is_encoded_in_its_own_bucket_of_each_stage_and_as_an_image():
    assert encoded(config.load("smoke", SEVERAL)) == {
        "1x48x80": ["0", "1", "2", "3"],  # all of stage 1
        "1x64x64": ["2", "3"],
        "1x80x48": ["1"],
        "1x96x160": ["0", "1", "2", "3"],
        "8x80x48": ["1"],
        "16x96x160": ["0", "3"],  # stage 3
        "32x48x80": ["0"],
        "32x64x64": ["3"],
    }


def test_a_stage_without_images_has_only_clips_too_short_for_a_video_encoded_as_such():
    silent = {"stages.3.dataloader.image_ratio": 0.0}
    assert encoded(config.load("smoke", SEVERAL | silent))["1x96x160"] == ["1", "2"]


def test_a_clip_that_was_never_measured_has_no_bucket():
    with pytest.raises(
        ConfigError, match=r"/data/x.mp4: a clip of 0 frames has no bucket: there are those of 1, 16 frames"
    ):
        precompute.by_bucket([Clip(Path("/data/x.mp4"))], config.load("smoke").recipes[2].dataset.buckets)


def test_buckets_are_counted_by_stage(run, quick):
    precompute.precompute(run, World())
    latents_of = sorted(run.folder.glob("40x16x32/*"))
    with (run.folder / "buckets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"frames": "40", "height": "16", "width": "32", "clips": "4", "held_out": "1"}
    assert len(latents_of) == 5
    assert [row for row in rows if row["frames"] == "40"] == [wanted | {"stage": stage} for stage in "123"]
    assert all((row["clips"], row["held_out"]) == ("0", "0") for row in rows if row["frames"] == "1")
