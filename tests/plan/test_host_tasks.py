"""What a host's step is made of: as much arithmetic as `plan.flops` counts, and what can be counted by hand."""

import math

import pytest
from mindspore.nn.utils import no_init_parameters

from moviegen import config
from moviegen.config import Bucket, ConfigError
from moviegen.dit.model import DiT
from moviegen.plan.flops import dit_forward, tae_decode, tae_encode, tae_parameter_count
from moviegen.plan.host import KINDS
from moviegen.plan.host_tasks import VGG16, stage_tasks, tae_tasks, weight_sizes
from moviegen.tae.lpips import SLICES

VGG16_MULTIPLY_ADDS = 15_346_630_656  # of its convolutions, of 224 x 224 pixels
ALONE = {"launch.worker_num": 1, "launch.local_worker_num": 1}
WITH_LPIPS = {"tae.loss.lpips_checkpoint": "vgg16.ckpt"}


def work(tasks, *kinds):
    """All work of some kinds."""
    assert {task.kind for task in tasks} <= set(KINDS)
    return sum(task.work for task in tasks if task.kind in kinds)


@pytest.mark.parametrize("name", ["tiny", "smoke", "1B"])
def test_weights_are_those_of_the_class(name):
    dit = config.load(name).dit_config(2)
    with no_init_parameters():
        sizes = [parameter.size for parameter in DiT(dit).get_parameters()]
    assert sorted(weight_sizes(dit)) == sorted(sizes)


@pytest.mark.parametrize(("stage", "frames", "samples"), [(1, 1, 16), (2, 1, 32), (2, 16, 16), (3, 16, 8)])
def test_a_stage_s_arithmetic_is_that_of_the_formula(stage, frames, samples):
    params = config.load("tiny")
    clip = Bucket(frames, *params.recipes[stage].dataset.size)
    tasks, tokens = stage_tasks(params, stage, clip), math.ceil(frames / 8) * clip.height // 16 * (clip.width // 16)
    forward = dit_forward(params.dit_config(stage), tokens, params.text.lengths)
    assert work(tasks, "product") == 3 * samples * (forward.projections + forward.feed_forward)
    assert work(tasks, "attention") == 3.5 * samples * forward.attention


def test_micro_batches_repeat_all_but_the_update():
    once = stage_tasks(config.load("tiny"), 2, Bucket(1, 48, 80))
    params = config.load("tiny", {"train.settings.gradient_accumulation_steps": 3})
    often = stage_tasks(params, 2, Bucket(1, 48, 80))
    for kind in ("product", "attention", "activation", "modulation"):
        assert work(often, kind) == 3 * work(once, kind)
    assert work(often, "update", "average") == work(once, "update", "average")
    added = 4 * sum(weight_sizes(params.dit_config(2)))  # to the sums, which start over
    assert work(often, "pass") == 3 * work(once, "pass") + added


def test_ranks_add_up_gradients_and_gather_the_weights_that_they_divide():
    params = config.load("tiny")
    weights = sum(weight_sizes(params.dit_config(1)))
    divided = stage_tasks(params, 1, Bucket(1, 48, 80))
    assert work(divided, "all_reduce") == work(divided, "all_gather") == 4 * weights
    assert work(divided, "update") == work(divided, "average") == weights / 2
    whole = stage_tasks(config.load("tiny", {"stages.1.train.settings.zero_stage": 0}), 1, Bucket(1, 48, 80))
    assert work(whole, "all_reduce") == 4 * weights
    assert work(whole, "all_gather") == 0
    assert work(whole, "update") == weights
    alone = stage_tasks(config.load("tiny", ALONE), 1, Bucket(1, 48, 80))
    assert work(alone, "all_reduce", "all_gather") == 0


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"train.settings.dtype": "bfloat16"}, "train.settings.dtype bfloat16"),
        ({"stages.1.train.settings.zero_stage": 3}, "train.settings.zero_stage 3"),
        ({"model.recompute_every_nth_block": 2}, "model.recompute_every_nth_block 2"),
        ({"stages.1.train.sequence_parallel.shards": 2}, "train.sequence_parallel.shards 2"),
    ],
)
def test_what_is_not_counted_is_said_and_not_foretold(overrides, named):
    with pytest.raises(ConfigError, match=f"stage 1: {named} is not counted"):
        stage_tasks(config.load("tiny", overrides), 1, Bucket(1, 48, 80))


@pytest.mark.parametrize(("phase", "frames"), [("opl-off", 16), ("opl-on", 1), ("mixkit", 16), ("image", 1)])
def test_the_autoencoder_s_arithmetic_is_that_of_the_formula(phase, frames):
    params = config.load("tiny", {"tae.loss.lpips_checkpoint": ""})
    stage = {"image": params.tae.image, "mixkit": params.tae.mixkit}.get(phase, params.tae.video)
    model = params.tae.model.model_copy(update={"is_temporal": phase != "image"})
    height, width = stage.size
    latent_frames = math.ceil(frames / 8)
    forward = tae_encode(model, frames, height, width) + tae_decode(model, latent_frames, height // 8, width // 8)
    tasks = tae_tasks(params, phase, Bucket(frames, height, width), is_compiled=False)
    first = 2 * 9 * 3 * model.base_channels * frames * height * width  # nobody asks for the video's gradient
    wanted = stage.batch_size * (3 * (forward.convolutions + forward.projections) - first)
    assert work(tasks, "spatial", "temporal", "product") == wanted
    assert work(tasks, "attention") == 3.5 * stage.batch_size * forward.attention
    assert work(tasks, "update") == tae_parameter_count(model)
    assert work(tasks, "frozen", "pooling") == 0


def test_compiled_operators_convolve_a_doubled_picture_with_fewer_products():
    params, clip = config.load("tiny"), Bucket(1, 64, 64)
    own, compiled = (work(tae_tasks(params, "opl-off", clip, form), "spatial") for form in (False, True))
    # channels and places of the three pictures that are doubled; one latent frame has become 2, 4, 8 by then
    doubled = ((128, 1 * 16 * 16), (64, 2 * 32 * 32), (32, 4 * 64 * 64))
    products = sum(2 * 9 * channels**2 * places for channels, places in doubled)
    assert own - compiled == pytest.approx(2 * 3 * products * 20 / 36)


def test_lpips_is_that_of_vgg16_of_both_pictures_and_back_for_one():
    assert [[width for _, width in places] for places in SLICES] == [list(widths) for widths in VGG16]
    seen = {"tae.loss.perceptual_frames": 4, "tae.video.batch_size": 2}
    tasks = tae_tasks(config.load("tiny", WITH_LPIPS | seen), "opl-off", Bucket(16, 224, 224))
    assert work(tasks, "frozen") == 2 * 4 * 3 * 2 * VGG16_MULTIPLY_ADDS
    one = tae_tasks(config.load("tiny", WITH_LPIPS | seen), "opl-off", Bucket(1, 224, 224))
    assert work(one, "frozen") == 2 * 1 * 3 * 2 * VGG16_MULTIPLY_ADDS
    every = tae_tasks(
        config.load("tiny", WITH_LPIPS | {"tae.loss.perceptual_frames": 0}), "opl-off", Bucket(16, 64, 64)
    )
    some = tae_tasks(config.load("tiny", WITH_LPIPS), "opl-off", Bucket(16, 64, 64))
    assert work(every, "frozen") == 4 * work(some, "frozen")
