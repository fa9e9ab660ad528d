"""Counted memory against MindSpore's own graphs in a card's form, and against what processes really grow by."""

import json
import subprocess
import sys

import pytest

from moviegen.config import Bucket, DiTConfig, Params, load, merge, visual_tokens
from moviegen.plan import dit_memory, memory, tae_memory

LENGTHS = (40,)  # text tokens
WITHIN = 0.10  # how far the count may be off: it has to tell which recipe fits, not where the last buffer is


def ran(**case):
    """What the step of tests/plan/steps.py takes, in bytes."""
    command = [sys.executable, "-m", "tests.plan.steps", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])["bytes"]


def miniature(scale, stage):
    """A published recipe with an eighth of the width, four blocks and half the clip: its case, and its micro-batch."""
    params = load(scale)
    recipe, config, clip = params.recipes[stage], params.dit_config(stage), dit_memory.fullest(params, stage)[0]
    shards, settings = recipe.train.sequence_parallel.shards, recipe.train.settings
    heads = max(4, shards)
    small = {
        "width": config.width // 8 // (8 * heads) * 8 * heads, "ffn_width": config.ffn_width // 8, "num_heads": heads,
        "num_layers": 4, "max_size": [64, 64, 64], "text_widths": [384, 0, 0],
    }  # fmt: skip
    clip = Bucket(max(1, clip.frames // 2), *(side // 32 * 16 for side in clip[1:]))
    launch = params.launch_of(stage).model_copy(update={"jit_level": "O0"})  # the graph here is of single operators
    micro = dit_memory.micro_batch(DiTConfig.model_validate(small), recipe, launch, LENGTHS, clip)
    case = {
        "network": "dit", "form": "card", "config": small, "clip": list(clip), "text_lengths": LENGTHS,
        "settings": {
            "zero_stage": settings.zero_stage, "recompute": recipe.model.recompute_every_nth_block,
            "keep_attention": recipe.model.not_recompute_fa,
        },
        "micro_batches": settings.gradient_accumulation_steps, "cards": 8, "shards": shards, "samples": micro.samples,
        "moment_dtype": settings.moment_dtype, "gradient_dtype": settings.gradient_dtype,
    }  # fmt: skip
    return case, micro


def inputs(micro):
    """Bytes of a micro-batch as it comes, which is no tensor of the graph: latent, noise, text."""
    return micro.samples * memory.FLOAT32 * (2 * memory.PATCH_WIDTH * micro.tokens) + micro.samples * micro.text_bytes


@pytest.mark.whole_job
@pytest.mark.parametrize(("scale", "stage"), [("1B", 2), ("1B", 3), ("5B", 1), ("5B", 3), ("30B", 3)])
def test_a_cards_tensors_are_those_of_the_compiled_graph(scale, stage):
    case, micro = miniature(scale, stage)
    counted = max(m.total - m.state for m in dit_memory.moments(micro)) - inputs(micro)
    assert counted == pytest.approx(ran(**case), rel=WITHIN)


def tiny_with(changes):
    """tiny on one CPU process, without an average of the weights."""
    return Params.model_validate(merge(load("tiny").model_dump(), changes))


DIT = {"width": 192, "ffn_width": 512, "num_heads": 6, "num_layers": 4, "max_size": [16, 64, 64]}
LARGER = {**DIT, "width": 384, "ffn_width": 1024, "num_layers": 8}
SIZES = [(DIT, 2, 4, (16, 256, 256)), (DIT, 1, 4, (32, 256, 256)), (LARGER, 1, 4, (16, 256, 512))]


@pytest.mark.whole_job
@pytest.mark.parametrize(("config", "micro_batches", "samples", "clip"), SIZES)
def test_a_transformers_step_grows_a_process_as_counted(config, micro_batches, samples, clip):
    """Weights and the optimizer's moments are there before the first step."""
    config = {**config, "text_widths": [384, 0, 0]}
    case = {
        "network": "dit", "form": "cpu", "config": config, "clip": clip, "text_lengths": LENGTHS, "samples": samples,
        "micro_batches": micro_batches, "settings": {"zero_stage": 0, "recompute": 0, "keep_attention": False},
    }  # fmt: skip
    changes = {
        "dataloader": {"batch_size": {"image_batch_size": samples, "video_batch_size": samples}},
        "train": {"ema": None, "settings": {"gradient_accumulation_steps": micro_batches}},
    }
    params = load("tiny")
    recipe = type(params.recipes[3]).model_validate(merge(params.recipe_values(3), changes))
    launch = params.launch.model_copy(update={"worker_num": 1, "local_worker_num": 1})
    micro = dit_memory.micro_batch(DiTConfig.model_validate(config), recipe, launch, LENGTHS, Bucket(*clip))
    assert micro.own == visual_tokens(*clip)
    counted = max(m.total - m.state for m in dit_memory.moments(micro))
    assert counted == pytest.approx(ran(**case), rel=WITHIN)


TAE = {"base_channels": 16, "num_groups": 4, "num_res_blocks": 1, "channel_multipliers": [1, 2, 4, 8]}


def autoencoder(device, form, samples, clip, perceptual=False, dtype="float32", recompute=0):
    """Bytes beyond the state of a step, as counted, and as the step itself takes them."""
    stage = {
        "batch_size": samples, "frames": clip[0], "size": clip[1:], "settings": {"dtype": dtype},
        "recompute_every_nth_block": recompute,
    }  # fmt: skip
    loss = {"perceptual": float(perceptual), "lpips_checkpoint": "a file" if perceptual else "", "perceptual_frames": 0}
    params = tiny_with({"tae": {"model": TAE, "video": stage, "loss": loss}})
    params = params.model_copy(update={"launch": params.launch.model_copy(update={"device": device})})
    memory = tae_memory.tae_training_memory(params, "opl-off")
    case = {
        "network": "tae", "form": form, "config": TAE, "clip": clip, "samples": samples, "perceptual": perceptual,
        "dtype": dtype, "recompute": recompute,
    }  # fmt: skip
    return memory.total - memory.state, ran(**case)


@pytest.mark.whole_job
@pytest.mark.parametrize(("samples", "clip"), [(2, (16, 64, 64)), (1, (8, 128, 128))])
def test_an_autoencoders_step_grows_a_process_as_counted(samples, clip):
    counted, grown = autoencoder("CPU", "cpu", samples, clip)
    assert counted == pytest.approx(grown, rel=WITHIN)


@pytest.mark.whole_job
def test_the_perceptual_term_grows_it_as_counted():
    """All frames through VGG16, of which the backward pass keeps more than of the autoencoder."""
    counted, grown = autoencoder("CPU", "cpu", 1, (8, 96, 96), perceptual=True)
    assert counted == pytest.approx(grown, rel=WITHIN)


@pytest.mark.whole_job
@pytest.mark.parametrize(("dtype", "recompute", "perceptual"), [
    ("float32", 0, False), ("bfloat16", 0, False), ("bfloat16", 1, False), ("bfloat16", 1, True),
])  # fmt: skip
def test_an_autoencoders_tensors_on_a_card_are_those_of_the_compiled_graph(dtype, recompute, perceptual):
    counted, graph = autoencoder("Ascend", "card", 1, (16, 64, 64), perceptual, dtype, recompute)
    assert counted == pytest.approx(graph, rel=WITHIN)
