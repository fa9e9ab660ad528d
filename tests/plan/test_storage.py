"""Bytes on disk, against files that the project's own writers leave, and what a batch reads."""

import os

import numpy as np
import pytest

from moviegen import config
from moviegen.config import Bucket, ConfigError, Save, latent_size
from moviegen.data.clips import Clip
from moviegen.data.embeddings import caption_file, save_embedding
from moviegen.data.latents import clip_buckets, latent_file, load_latent
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.parallel.zero import Zero
from moviegen.plan import storage
from moviegen.runs.arrays import read_npz, save_npz
from moviegen.text.embedding import Embedding
from moviegen.train import checkpoint
from moviegen.train.checkpoint import Checkpoints
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW, LearningRate, LossScale
from moviegen.train.state import TrainingState

CAPTION = "a cat on a wall"


@pytest.fixture(scope="module")
def smoke():
    return config.load("smoke")


@pytest.fixture(scope="module")
def big():
    return config.load("5B")


def save_latent(params, folder, bucket):
    shape = (params.tae.model.latent_channels, *latent_size(*bucket))
    path = latent_file(folder, bucket, Clip(folder / "clip.mp4"), folder)
    save_npz(path, latent_mean=np.zeros(shape, np.float32), latent_std=np.ones(shape, np.float32))
    return path


def save_caption(params, folder, caption):
    for name, encoder in params.text.encoders.items():
        length = encoder.max_tokens
        embedding = Embedding(
            np.zeros((length, encoder.width), np.float32), np.ones(length, bool), np.zeros(length, np.int64)
        )
        save_embedding(caption_file(folder, name, caption), **vars(embedding))


# ---- caches


@pytest.mark.parametrize("bucket", [Bucket(1, 64, 96), Bucket(17, 64, 96), Bucket(256, 256, 448)], ids=str)
def test_a_latent_takes_what_its_file_does_to_the_byte(bucket, smoke, tmp_path):
    path = save_latent(smoke, tmp_path, bucket)
    assert storage.latent_file_bytes(bucket, smoke.tae.model.latent_channels) == path.stat().st_size


def test_captions_take_what_their_files_do_to_the_byte(smoke, tmp_path):
    for caption in ("", CAPTION):
        save_caption(smoke, tmp_path, caption)
    found = {name: sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in os.listdir(tmp_path)}
    assert storage.data_caches(smoke, clips=1).embeddings == found


def test_a_caption_of_the_paper_takes_5_mb_where_it_is_as_long_as_can_be(big):
    numbers = 512 * 4096 + 256 * 1280 + 128 * 1472
    assert 5e6 < 2 * numbers < 5.5e6
    headers = 3 * 2**11
    found = storage.data_caches(big, clips=1, captions=0)
    assert sum(found.embeddings.values()) == pytest.approx(2 * numbers + 9 * (512 + 256 + 128), abs=headers)


@pytest.mark.parametrize("scale", ["smoke", "1B", "5B", "30B"])
def test_a_clip_is_encoded_where_the_program_encodes_it(scale, tmp_path):
    """One of each stage's own aspect ratio and longest length; with all ratios the nearest has about as many pixels."""
    params = config.load(scale)
    longest = max(recipe.dataset.longest for recipe in params.recipes.values())
    height, width = params.recipes[3].dataset.size
    encoded = clip_buckets(params, [Clip(tmp_path / "clip.mp4", frames=longest, height=height, width=width)])
    wanted = sorted(bucket for bucket, _ in encoded)
    found = storage.clip_buckets(params)
    assert [bucket.frames for bucket in found] == [bucket.frames for bucket in wanted]
    pixels, others = ([bucket.height * bucket.width for bucket in buckets] for buckets in (found, wanted))
    assert pixels == pytest.approx(others, rel=0.05)


def test_caches_grow_with_clips(big):
    one, many = storage.data_caches(big, 1, 0), storage.data_caches(big, 1000, 999)
    assert many.total == 1000 * one.total
    assert many.total == sum(many.latents.values()) + sum(many.embeddings.values())


@pytest.mark.parametrize(("clips", "captions"), [(0, None), (-1, 5), (3, -1)])
def test_no_data_set_is_refused(clips, captions, smoke):
    with pytest.raises(ConfigError, match="make no data set: give 1 clip or more"):
        storage.data_caches(smoke, clips, captions)


# ---- checkpoints


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_checkpoint_holds_what_its_files_do_but_for_their_headers(decay, tmp_path):
    params = config.load("smoke", {"train.ema": decay and {"decay": decay}})
    recipe = params.recipes[2]
    zero = Zero(DiT(params.dit_config(2)), 0, World())
    optimizer, ema = AdamW(zero.masters, recipe.train.optimizer, zero.shapes), EMA(zero, decay) if decay else None
    state = TrainingState(zero, optimizer, ema, LearningRate(recipe.train.lr_scheduler), LossScale())
    checkpoints, counted = Checkpoints(tmp_path, Save()), storage.checkpoint_bytes(params, 2)
    folder = checkpoints.save(1, state.parts(), state.numbers())
    files = checkpoints.at(1).files
    found = {kind: sum(np.asarray(array).nbytes for array in arrays.values()) for kind, arrays in files.items()}
    planned = {"weights": counted.weights, "optimizer": counted.optimizer, "ema": counted.average}
    assert found == {name: size for name, size in planned.items() if size}
    assert counted.total == sum(map(tensor_bytes, folder.glob("*.safetensors")))
    assert counted.trained == found["weights"] + found.get("ema", 0)


def tensor_bytes(path):
    """Of a safetensors file without its header, whose length stands in its first eight bytes."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


@pytest.mark.parametrize("policy", ["latest_k", "top_k"])
@pytest.mark.parametrize(("steps", "interval", "keep"), [(10, 1, 3), (7, 2, 3), (7, 2, 4), (2, 5, 3)])
def test_as_many_checkpoints_stay_as_a_run_keeps(policy, steps, interval, keep, tmp_path, monkeypatch):
    """Losses rise: of the best the newest is none."""
    save = {"interval": interval, "keep": keep, "ckpt_save_policy": policy}
    params = config.load("smoke", {"stages.1.train.steps": steps, "train.save": save, "valid.frequency": 1})
    checkpoints, counted = Checkpoints(tmp_path, Save(**save)), storage.checkpoint_bytes(params, 1)
    most, remove = [], checkpoint._remove
    monkeypatch.setattr(checkpoint, "_remove", lambda folder: most.append(len(os.listdir(tmp_path))) or remove(folder))
    for step in range(1, steps + 1):
        if step % interval == 0 or step == steps:
            checkpoints.save(step, [], {"validation_loss": float(step)})
    assert counted.kept == len(os.listdir(tmp_path))
    assert counted.most == max([*most, counted.kept])
    assert counted.on_disk == counted.most * counted.total


# ---- reading


def test_a_sample_is_what_its_files_give(smoke, tmp_path):
    recipe = smoke.recipes[2]
    bucket = Bucket(recipe.dataset.longest, *recipe.dataset.size)
    save_caption(smoke, tmp_path, CAPTION)
    arrays = list(load_latent(save_latent(smoke, tmp_path, bucket)))
    for name in smoke.text.encoders:
        arrays += read_npz(caption_file(tmp_path, name, CAPTION), "text_emb", "mask", mend="")
    assert storage.sample_bytes(smoke, bucket) == sum(array.nbytes for array in arrays)


def test_a_short_caption_takes_what_its_own_tokens_do(smoke, tmp_path):
    for name, encoder in smoke.text.encoders.items():
        path, keep = caption_file(tmp_path, name, CAPTION), np.arange(encoder.max_tokens) < 5
        text_emb = np.zeros((encoder.max_tokens, encoder.width), np.float32)
        save_embedding(path, text_emb, keep, np.zeros(encoder.max_tokens, np.int64))
        assert storage.embedding_file_bytes(encoder, tokens=5) == path.stat().st_size


def test_every_card_reads_its_own_samples_of_every_micro_batch(big):
    clip = Bucket(256, 576, 1024)
    found = storage.training_reads(big, 3, seconds=10)
    assert found.update == 8 * 5 * storage.sample_bytes(big, clip)
    assert found.rate == found.update / 10
    assert storage.training_reads(big, 3, 10, Bucket(1, 576, 1024)).update < found.update / 2


def test_cards_that_share_a_sample_all_read_it():
    params = config.load("30B")
    assert storage.training_reads(params, 3, 1).update == 8 * storage.sample_bytes(params, Bucket(256, 576, 1024))


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_no_time_is_refused(seconds, smoke):
    with pytest.raises(ConfigError, match="give seconds above 0"):
        storage.training_reads(smoke, 1, seconds)
