"""A stage of the transformer: what it starts from, and its validation loss, a mean that repeats to the last bit."""

import re

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, runs
from moviegen.__main__ import main
from moviegen.config import Bucket, ConfigError, DiTConfig
from moviegen.data.embeddings import read_embeddings
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.weights import save_dit
from moviegen.flow.path import SampleLosses
from moviegen.parallel.mesh import Mesh
from moviegen.programs.encode_text import encode_captions
from moviegen.programs.train_dit import Caches, build, clip_sets, validation
from moviegen.runs.weights import load_arrays
from moviegen.train.batches import NOISE, Samples, ValidationBatches
from tests import small_runs

SEED, TIMES = 5, 4
WIDTHS, LENGTHS = (6, 5, 4), (3, 2, 4)
CONFIG = DiTConfig(
    width=16, ffn_width=24, num_heads=2, num_layers=1, max_size=(2, 2, 4), text_widths=WIDTHS, frequency_width=8
)
BUCKETS = {Bucket(8, 32, 64): 3, Bucket(16, 32, 64): 1}


def held_out(bucket, count):
    """Random latents and captions; the first clip's values are large, so that its losses weigh."""
    rng = np.random.default_rng(bucket.frames)
    mean = rng.standard_normal((count, 16, bucket.frames // 8, 4, 8), np.float32)
    mean[0] *= 10
    texts = [rng.standard_normal((count, *shape), np.float32) for shape in zip(LENGTHS, WIDTHS, strict=True)]
    keep = rng.random((count, sum(LENGTHS))) < 0.7
    keep[:, 0] = True
    return Samples(mean, np.ones_like(mean), (*texts, keep))


def losses_one_by_one(dit, groups):
    """Each pair's own loss: the network with one clip at one time, everything else in NumPy's float64."""
    losses = []
    for held in groups.values():
        for index in range(len(held.mean)):
            x_1 = held.mean[index : index + 1].astype(float)
            x_0 = np.random.default_rng([SEED, 0, index, NOISE]).standard_normal(x_1.shape, np.float32).astype(float)
            text = [ms.Tensor(array[index : index + 1]) for array in held.text]
            for t in (0.125, 0.375, 0.625, 0.875):
                x_t = t * x_1 + (1 - (1 - 1e-5) * t) * x_0
                at = ms.Tensor([1000 * (1 - t)], ms.float32)
                predicted = dit(ms.Tensor(x_t, ms.float32), at, *text).asnumpy()
                losses.append(np.mean((predicted - (x_1 - (1 - 1e-5) * x_0)) ** 2))
    return losses


def test_validation_loss_repeats_and_is_the_mean_over_clips_and_times():
    overrides = {"valid.sampling_steps": TIMES, "dataloader.batch_size.video_batch_size": 8}
    recipe = config.load("smoke", overrides).recipes[2]
    groups = {bucket: held_out(bucket, count) for bucket, count in BUCKETS.items()}
    sets = {bucket: small_runs.latent_set(tuple("abc"[: BUCKETS[bucket]]), held) for bucket, held in groups.items()}
    batches = ValidationBatches(sets, recipe, SEED, World())
    assert [len(inputs[0]) for inputs in batches] == [6, 6, 4]
    dit = small_runs.random_dit(CONFIG)
    told = []
    validate = validation(SampleLosses(dit), batches, batches.counts())
    first, second = (validate(lambda **said: told.append((said["batch"], said["batches"]))) for _ in range(2))
    assert told == 2 * [(1, 3), (2, 3), (3, 3)]
    assert first == second
    losses = losses_one_by_one(dit, groups)
    assert len(losses) == 16
    assert first.pop("loss") == pytest.approx(np.mean(losses), rel=1e-5)
    at_each = dict(zip(("0.125", "0.375", "0.625", "0.875"), np.reshape(losses, (-1, TIMES)).mean(0), strict=True))
    assert first == pytest.approx({f"loss_at_{t}": loss for t, loss in at_each.items()}, rel=1e-5)


def test_at_each_time_ranks_have_parts_of_the_mean_over_all_of_them():
    """Three ranks, four times: no rank has each equally often; one clip's pairs do not divide, and two come twice."""
    recipe = config.load("smoke", {"valid.sampling_steps": TIMES}).recipes[2]
    clips = small_runs.latent_set(("a",), held_out(Bucket(8, 32, 64), 1))
    shares = [ValidationBatches({Bucket(8, 32, 64): clips}, recipe, SEED, World(rank, 3)) for rank in range(3)]

    def times_as_losses(x_1, x_0, t, *text):
        return 10 + t

    found = [validation(times_as_losses, share, share.counts())(lambda **said: None) for share in shares]
    for t in (0.125, 0.375, 0.625, 0.875):
        assert np.mean([one[f"loss_at_{t}"] for one in found]) == pytest.approx(10 + t)


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def built(params, stage):
    return build(runs.find(params, f"stage{stage}"), stage, Mesh(0, 1, 1))[1].arrays()


def test_a_stage_starts_from_the_one_before_with_its_tables_grown():
    params = config.load("smoke")
    small_runs.write_dit(params, 1)
    before, _ = load_arrays(runs.find(params, "stage1").folder / "dit.safetensors")
    after = built(params, 2)
    for axis, length, times in (("t", 4, 4), ("h", 12, 2), ("w", 12, 2)):
        name = f"pos_embedding_table_{axis}.embedding_table"
        assert len(after[name]) == length
        np.testing.assert_array_equal(after.pop(name)[::times], before.pop(name))
    assert after.keys() == before.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_stage_starts_from_a_named_file_with_its_tables_grown(tmp_path):
    own = small_runs.random_dit(config.load("smoke").dit_config(1))
    save_dit(tmp_path / "named.safetensors", own)
    params = config.load("smoke", {"stages.3.model.pretrained_model_path": str(tmp_path / "named.safetensors")})
    after, name = built(params, 3), "pos_embedding_table_h.embedding_table"
    np.testing.assert_array_equal(after[name][::6], own.pos_embedding_table_h.embedding_table.asnumpy())


CAPTIONS = ["a dog", "a red car", "a cat"]


def test_training_reads_the_caches_that_its_recipe_names_and_refuses_those_of_other_encoders(tmp_path):
    folder = tmp_path / "embeddings"
    params = config.load("smoke", {"dataset.text_emb_folder": str(folder)})
    encode_captions(folder, CAPTIONS, params, World())
    small_runs.write_data(params, CAPTIONS)
    small_runs.write_tae(params)
    small_runs.write_latents(params)
    stage, bucket = runs.find(params, "stage1"), Bucket(1, 48, 80)
    caches = Caches.of(stage, 1)
    assert (caches.latents.folder, caches.embeddings.folder) == (runs.find(params, "latents").folder, folder)
    clips = load_split(stage.upstream("data"), "mixkit_train")
    samples = clip_sets(stage, caches, {bucket: clips})[bucket].read(np.array([1, 0, 1]))
    assert (samples.mean.shape, samples.std.shape) == ((3, 16, 1, 6, 10), (3, 16, 1, 6, 10))
    captions = [clips[index].caption for index in (1, 0, 1)]
    for array, expected in zip(samples.text, read_embeddings(folder, captions, params.text), strict=True):
        np.testing.assert_array_equal(array, expected)
    other = config.load("smoke", {"dataset.text_emb_folder": str(folder), "text.ul2.max_tokens": 23})
    with pytest.raises(ConfigError, match=r"ul2 embeddings in .* were made by a stand-in encoder"):
        Caches.of(runs.find(other, "stage1"), 1)


def test_weights_that_do_not_fit_stop_a_stage_with_a_message(tmp_path, capsys):
    wider = config.load("smoke").dit_config(1).model_copy(update={"ffn_width": 100})
    save_dit(tmp_path / "wide.safetensors", small_runs.random_dit(wider))
    alone = ("--launch.worker_num", "1", "--launch.local_worker_num", "1", "--stages.3.train.sequence_parallel.shards")
    words = ("train", "--config", "smoke", "--stage", "1", *alone, "1", "--model.pretrained_model_path")
    assert main([*words, str(tmp_path / "wide.safetensors")]) == 2
    error = capsys.readouterr().err
    assert re.search(r"^error: .*wide.safetensors does not fit the model: \d+ of another shape", error, re.M)
