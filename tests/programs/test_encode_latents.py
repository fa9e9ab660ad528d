"""Latents of every clip: shapes, tiles, shares of ranks, resumption, and whose TAE made them."""

import csv
import itertools
import json
import shutil

import mindspore as ms
import numpy as np
import pytest

from moviegen import __main__, config, runs
from moviegen.config import Bucket, ConfigError, TAEConfig
from moviegen.data import videos
from moviegen.data.clips import Clip, save_index
from moviegen.data.latents import check_origin, latent_file, load_latent
from moviegen.data.pixels import resize_and_crop
from moviegen.data.splits import data_folder, load_split
from moviegen.device.world import World
from moviegen.programs import encode_latents
from moviegen.programs.encode_latents import precompute
from moviegen.runs import patience
from moviegen.tae.model import TAE, Encode
from moviegen.tae.weights import load_tae, save_tae

SMALL = TAEConfig(
    base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2, scaling_factor=2.0,
    shift_factor=0.5,
)  # fmt: skip
BUCKET = Bucket(40, 16, 32)
NAMES = {4: "字" * 80}  # as long as a name may nearly be
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
        path = root / "mixkit" / f"{NAMES.get(index, index)}.mp4"
        frames = np.random.default_rng(index).integers(0, 256, (44, 16, 32, 3), dtype=np.uint8)
        videos.write_video(path, frames, 12)
        clips.append(Clip(path, caption=f"clip {index}", label="mixkit", group=index, frames=44, height=16, width=32))
    with runs.record(runs.find(params, "data")) as data:
        save_index(data.folder / "mixkit_train.csv", clips[:4], root)
        save_index(data.folder / "mixkit_val.csv", clips[4:], root)
    with runs.record(runs.find(params, "tae-mixkit")) as tae:
        save_tae(tae.folder / "tae.safetensors", TAE(SMALL))
    return runs.find(params, "latents")


def files(run):
    return sorted(path.relative_to(run.folder).as_posix() for path in run.folder.glob("*/*.npz"))


@pytest.mark.usefixtures("eager")
def test_latents_of_a_long_clip_are_those_of_its_tiles(run):
    precompute(run, World())
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["latents"] == {"40x16x32": [16, 5, 2, 4]}
    assert (summary["clips"], summary["set_aside"]) == (5, 0)
    assert len(files(run)) == len((run.folder / "index.csv").read_text().splitlines()) - 1 == 5
    tae = load_tae(run.upstream("tae-mixkit").folder / "tae.safetensors")
    clip = Clip(data_folder(run.params) / "mixkit" / "2.mp4", frames=44)
    mean, std = load_latent(latent_file(run.folder, BUCKET, clip, clip.path.parents[1]))
    frames = videos.read_frames(clip.path, range(2, 42))  # the centre 40 of 44
    for start, stop, part in ((0, 32, slice(0, 4)), (32, 40, slice(4, 5))):
        tile = resize_and_crop(frames[start:stop], 16, 32)[None]
        wanted, logvar = (moment.asnumpy()[0] for moment in Encode(tae)(ms.Tensor(tile)))
        np.testing.assert_allclose(mean[:, part], (wanted - 0.5) * 2, atol=1e-5)
        np.testing.assert_allclose(std[:, part], np.exp(0.5 * logvar) * 2, atol=1e-6)


@pytest.fixture
def quick(monkeypatch):
    """Encoding without a network; returns the clips that were encoded."""
    encoded = []

    def encode(network, tae, clip, bucket, tiling):
        videos.read_frames(clip.path, [0])
        encoded.append(clip.path.stem)
        return np.zeros((16, 5, 2, 4), np.float32), np.ones((16, 5, 2, 4), np.float32)

    monkeypatch.setattr(encode_latents, "encode", encode)
    return encoded


def share(run, rank, size):
    clips = load_split(run.upstream("data"), "mixkit_train")
    clips += load_split(run.upstream("data"), "mixkit_val")
    encode_latents.encode_share(run, clips, run.upstream("tae-mixkit").folder / "tae.safetensors", World(rank, size))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_ranks_share_the_clips(size, run, quick):
    for rank in range(size):
        share(run, rank, size)
    assert sorted(quick) == [*"0123", NAMES[4]]
    assert len(files(run)) == 5


def test_from_the_command_line_the_run_is_recorded_and_tells_clip_by_clip(run, quick, bars_of):
    bars = bars_of(encode_latents)
    run.write_params()
    assert __main__.main(["precompute", "--config", str(run.params_path)]) == 0
    assert run.complete
    assert sorted(quick) == [*"0123", NAMES[4]]
    assert [bar.n for bar in bars] == [5]
    assert [(line["step"], line["steps"]) for line in run.metrics()] == [(step, 5) for step in range(1, 6)]


def test_a_run_that_was_cut_goes_on_where_it_was(run, quick):
    precompute(run, World())
    lost = run.folder / files(run)[3]
    lost.unlink()
    quick.clear()
    precompute(run, World())
    assert len(quick) == 1
    assert lost.exists()


def test_buckets_take_turns_and_more_clips_than_one_wants_to_wait_for_are_refused_early(monkeypatch, run, quick):
    two_buckets = ONE_BUCKET | {"dataset.frames": [24, 40]}
    params = config.load("smoke", two_buckets | {"data.patience_hours": 0.1})
    run = runs.find(params, "latents")
    data, clips = runs.find(params, "data"), []
    for index in range(100):
        path = data_folder(params) / "mixkit" / f"many-{index}.mp4"
        shutil.copy(data_folder(params) / "mixkit" / "0.mp4", path)
        clips.append(Clip(path, label="mixkit", group=index, frames=44 if index < 80 else 30, height=16, width=32))
    with runs.record(data):
        save_index(data.folder / "mixkit_train.csv", clips[:-1], data_folder(params))
        save_index(data.folder / "mixkit_val.csv", clips[-1:], data_folder(params))
    looks = itertools.count(step=10)  # a latent takes ten seconds: 100 of them 16 minutes and not 6
    monkeypatch.setattr(patience, "monotonic", lambda: next(looks))
    with pytest.raises(ConfigError, match=r"encoding the clips takes 0\.25 hours more.*data\.max_clips to 32 "):
        share(run, 0, 1)
    assert len(quick) == len(files(run)) == 10  # of each bucket one, which also compiles, and four
    assert {name.split("/")[0] for name in files(run)} == {"24x16x32", "40x16x32"}
    patient = runs.find(config.load("smoke", two_buckets | {"data.patience_hours": None}), "latents")
    assert patient.folder == run.folder
    share(patient, 0, 1)
    assert len(quick) == len(files(run)) == 100  # it went on where the other stopped


def test_a_damaged_clip_is_set_aside_and_counted(run, quick):
    broken = data_folder(run.params) / "mixkit" / "1.mp4"
    broken.write_bytes(b"no video")
    with pytest.warns(UserWarning, match=r"1.mp4 is set aside"):
        precompute(run, World())
    assert sorted(quick) == [*"023", NAMES[4]]
    assert json.loads((run.folder / "summary.json").read_text())["set_aside"] == 1


def test_latents_of_another_tae_are_refused(run, quick, tmp_path):
    precompute(run, World())
    weights = run.upstream("tae-mixkit").folder / "tae.safetensors"
    check_origin(run.folder, weights)
    other = TAE(SMALL)
    for parameter in other.get_parameters():
        parameter.set_data(parameter + 1)
    save_tae(tmp_path / "other.safetensors", other)
    with pytest.raises(ConfigError, match="made by a TAE with checksum"):
        check_origin(run.folder, tmp_path / "other.safetensors")
    (run.folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match="no finished latents"):
        check_origin(run.folder, weights)


def test_buckets_are_counted_by_stage(run, quick):
    precompute(run, World())
    latents_of = sorted(run.folder.glob("40x16x32/*"))
    with (run.folder / "buckets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"frames": "40", "height": "16", "width": "32", "clips": "4", "held_out": "1"}
    assert len(latents_of) == 5
    assert [row for row in rows if row["frames"] == "40"] == [wanted | {"stage": stage} for stage in "123"]
    assert all((row["clips"], row["held_out"]) == ("0", "0") for row in rows if row["frames"] == "1")
