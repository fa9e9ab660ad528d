"""A stage of the transformer: what it starts from, and its validation loss, a mean that repeats to the last bit."""

import re

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, flow, runs
from moviegen.__main__ import main
from moviegen.config import DiTConfig
from moviegen.data.buckets import Bucket
from moviegen.device.collectives import World
from moviegen.dit.weights import save_dit
from moviegen.parallel.mesh import Mesh
from moviegen.train.dit import build, validation
from moviegen.train.dit_batches import NOISE, Samples, ValidationBatches
from moviegen.weights import load_arrays, to_arrays
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
    return Samples(mean, np.ones_like(mean), *texts, keep)


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
    validate = validation(flow.FlowMatchingLoss(dit), batches)
    first, second = validate(), validate()
    assert first == second
    losses = losses_one_by_one(dit, groups)
    assert len(losses) == 16
    assert first["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))


def built(params, stage):
    return to_arrays(dict(build(runs.find(params, f"stage{stage}"), stage, Mesh(0, 1, 1)).parameters_and_names()))


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


def test_weights_that_do_not_fit_stop_a_stage_with_a_message(tmp_path, capsys):
    wider = config.load("smoke").dit_config(1).model_copy(update={"ffn_width": 100})
    save_dit(tmp_path / "wide.safetensors", small_runs.random_dit(wider))
    one = ("--launch.worker_num", "1", "--launch.local_worker_num", "1", "--train.sequence_parallel.shards", "1")
    words = ("train", "--config", "smoke", "--stage", "1", *one, "--model.pretrained_model_path")
    assert main([*words, str(tmp_path / "wide.safetensors")]) == 2
    error = capsys.readouterr().err
    assert re.search(r"^error: .*wide.safetensors does not fit the model: \d+ of another shape", error, re.M)
