"""The cache of latents: which clips at which sizes, the files they lie in, and whose TAE made them."""

import json
from pathlib import Path

import numpy as np
import pytest

from moviegen import config, runs
from moviegen.config import Bucket, ConfigError
from moviegen.data.clips import Clip
from moviegen.data.latents import (
    by_bucket,
    check_latents,
    check_origin,
    clip_buckets,
    image_buckets,
    latent_file,
    latents_folder,
    load_latent,
    open_latents,
    video_buckets,
)
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import checksum, write_json
from tests import small_runs

BUCKET = Bucket(40, 16, 32)
SIZES = [(40, 360, 640), (12, 640, 360), (4, 480, 480), (40, 500, 480)]
CLIPS = [Clip(Path(f"/data/{i}.mp4"), frames=t, height=h, width=w) for i, (t, h, w) in enumerate(SIZES)]
SEVERAL = {"stages.2.dataset.frames": [8, 32], "stages.2.dataset.aspect_ratios": ["16:9", "1:1", "9:16"]}


# --- buckets ---


def names(buckets):
    return {str(bucket): [clip.path.stem for clip in clips] for bucket, clips in buckets.items()}


def to_encode(params):
    clips = {}
    for bucket, clip in clip_buckets(params, CLIPS):
        clips.setdefault(bucket, []).append(clip)
    return {bucket: sorted(stems) for bucket, stems in names(clips).items()}


def test_each_clip_is_encoded_in_its_own_bucket_of_each_stage_and_as_an_image():
    assert to_encode(config.load("smoke", SEVERAL)) == {
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
    assert to_encode(config.load("smoke", SEVERAL | silent))["1x96x160"] == ["1", "2"]


def test_a_stage_draws_images_of_any_clip_and_videos_of_those_that_fill_one():
    recipe = config.load("smoke", SEVERAL).recipes[2]
    assert names(image_buckets(recipe, CLIPS)) == {"1x48x80": ["0"], "1x80x48": ["1"], "1x64x64": ["2", "3"]}
    assert names(video_buckets(recipe, CLIPS)) == {"32x48x80": ["0"], "8x80x48": ["1"], "32x64x64": ["3"]}
    silent = config.load("smoke", {"stages.2.dataloader.image_ratio": 0.0}).recipes[2]
    assert image_buckets(silent, CLIPS) == {}


def test_a_clip_that_was_never_measured_has_no_bucket():
    with pytest.raises(
        ConfigError, match=r"/data/x.mp4: a clip of 0 frames has no bucket: there are those of 1, 16 frames"
    ):
        by_bucket([Clip(Path("/data/x.mp4"))], config.load("smoke").recipes[2].dataset.buckets)


# --- files ---


def test_clips_of_one_name_in_two_folders_have_files_of_their_own(tmp_path):
    clips = [Clip(tmp_path / folder / "a.mp4") for folder in ("one", "two")]
    files = {latent_file(tmp_path, BUCKET, clip, tmp_path) for clip in clips}
    assert len(files) == 2
    moved = Clip(tmp_path / "elsewhere" / "one" / "a.mp4")
    assert latent_file(tmp_path, BUCKET, moved, tmp_path / "elsewhere") in files


def test_a_clip_of_a_long_name_has_files_of_its_own_that_can_be_written(tmp_path):
    clips = [Clip(tmp_path / f"{name}.mp4") for name in ("字" * 80, "字" * 79 + "漢", "x" * 251, "x" * 120, "0003")]
    files = [latent_file(tmp_path, BUCKET, clip, tmp_path) for clip in clips]
    for file in files:
        write_latent(file)
    assert len(list((tmp_path / str(BUCKET)).iterdir())) == 5
    assert files[3].name.startswith("x" * 120 + "-") and files[4].name.startswith("0003-")


def write_latent(path, shape=(16, 5, 2, 4)):
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal((2, *shape), np.float32)
    save_npz(path, latent_mean=mean, latent_std=std)
    return mean, std


def test_what_is_saved_is_read_again(tmp_path):
    saved = write_latent(tmp_path / "a.npz")
    np.testing.assert_array_equal(load_latent(tmp_path / "a.npz"), saved)


def test_latents_of_two_shapes_in_one_bucket_are_refused(tmp_path):
    files = [tmp_path / f"{index}.npz" for index in range(3)]
    for file in files:
        write_latent(file)
    check_latents(open_latents(tmp_path), files)
    write_latent(files[2], (16, 4, 2, 4))
    with pytest.raises(ConfigError, match=rf"{files[2]} holds latents of shapes .*16, 4, 2, 4.* and {files[0]} of"):
        check_latents(open_latents(tmp_path), files)


def test_a_damaged_latent_is_named_with_what_to_do(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    for look in (load_latent, lambda path: check_latents(open_latents(tmp_path), [path])):
        with pytest.raises(
            ConfigError, match=r"a.npz is damaged .*: remove it and run `python -m moviegen precompute`"
        ):
            look(tmp_path / "a.npz")


# --- whose they are ---


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A report whose autoencoder is trained."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path / "outputs"))
    params = config.load("smoke")
    small_runs.write_tae(params)
    return params


def weights_of(params):
    return runs.find(params, "tae-mixkit").folder / "tae.safetensors"


def test_latents_of_another_tae_are_refused(params, tmp_path):
    weights, other = weights_of(params), tmp_path / "other.safetensors"
    write_json(tmp_path / "latents" / "summary.json", {"tae_sha256": checksum(weights)})
    check_origin(tmp_path / "latents", weights)
    other.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ConfigError) as raised:
        check_origin(tmp_path / "latents", other)
    for part in (
        str(tmp_path / "latents"),
        "made by a TAE with checksum",
        checksum(weights)[:12],
        checksum(other)[:12],
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("summary", [None, {"clips": 3}])
def test_a_folder_that_says_nothing_of_its_tae_is_refused(params, tmp_path, summary):
    if summary:
        (tmp_path / "summary.json").write_text(json.dumps(summary))
    message = "made by a TAE with checksum None" if summary else "holds no finished latents"
    with pytest.raises(ConfigError, match=message):
        check_origin(tmp_path, weights_of(params))


def test_a_stage_reads_the_folder_it_names_or_the_reports_own(params, tmp_path):
    named = {"stages.2.dataset.tae_latent_folder": str(tmp_path / "latents")}
    stage = runs.find(config.load("smoke", named), "stage2")
    with pytest.raises(ConfigError, match="holds no finished latents"):
        latents_folder(stage, 2)
    origin = {"tae_sha256": checksum(weights_of(params))}
    write_json(tmp_path / "latents" / "summary.json", origin)
    assert latents_folder(stage, 2) == tmp_path / "latents"
    with pytest.raises(ConfigError, match=r"stage2 needs latents-\w+, .*`python -m moviegen precompute --config"):
        latents_folder(stage, 3)
    with runs.record(runs.find(params, "latents")) as own:
        write_json(own.folder / "summary.json", origin)
    assert latents_folder(stage, 3) == own.folder
