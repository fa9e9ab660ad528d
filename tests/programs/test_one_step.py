"""`step`: one training step, and a forward pass in float16, of a size on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from moviegen import config
from moviegen.__main__ import main
from moviegen.dit.weights import save_dit
from tests.small_runs import random_dit

ROOT = Path(__file__).parents[2]
PARAMS = config.load("smoke")
LATENT = (1, 16, 1, 6, 10)  # one image of 48x80


def step(*options):
    """What `step` printed."""
    command = (sys.executable, "-m", "moviegen", "step", "--config", "smoke", *options)
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("smoke: 2 layers, width 64\n")
    return done.stdout


def numbers(printed, pattern):
    return [float(number) for number in re.findall(pattern, printed)]


def check_timed(printed, *what):
    """Each of `what` has its line, with how long it took and the memory, which grows but where a step is measured."""
    assert re.findall(r"^(.+?) +\d+\.\d s   peak", printed, re.M) == list(what)
    peaks = numbers(printed, r"peak +(\S+) GiB")[: -1 if what[-1] == "an update" else None]
    assert 0 < peaks[0] <= peaks[-1]
    assert peaks == sorted(peaks)


def drawn():
    """The latent and the noise that the step's seeds give."""
    latent = np.random.default_rng(PARAMS.seed).standard_normal(LATENT).astype(np.float32)
    return latent, np.random.default_rng(0).standard_normal(LATENT, np.float32)


def test_a_training_step_of_a_new_transformer_whose_velocity_is_zero():
    printed = step()
    check_timed(printed, "build and initialise", "first step, with compilation", "second step")
    latent, noise = drawn()
    first, second = numbers(printed, r"loss (\S+),")
    assert first == pytest.approx(np.mean((latent - (1 - 1e-5) * noise) ** 2), abs=1e-4)
    assert second < first  # the update went down the gradient
    assert min(numbers(printed, r"gradient norm (\S+)")) > 0


def test_a_training_step_starts_from_the_weights_it_is_given(tmp_path):
    dit = random_dit(PARAMS.dit_config(1))
    save_dit(tmp_path / "dit.safetensors", dit)
    printed = step("--model.pretrained_model_path", str(tmp_path / "dit.safetensors"))
    assert "load the weights" in printed
    latent, noise = drawn()
    rng = np.random.default_rng(PARAMS.seed)
    rng.standard_normal(LATENT)  # the latent comes first
    texts = [rng.standard_normal((1, one.max_tokens, one.width)) for _, one in PARAMS.text]
    x_t = ms.Tensor((latent + noise) / 2, ms.float32)
    predicted = dit(x_t, ms.Tensor([500.0], ms.float32), *(ms.Tensor(text, ms.float32) for text in texts)).asnumpy()
    (first, _) = numbers(printed, r"loss (\S+),")
    assert first == pytest.approx(np.mean((predicted - (latent - noise)) ** 2), rel=1e-3)


def test_weights_that_do_not_fit_are_refused(tmp_path, capsys):
    wider = PARAMS.dit_config(1).model_copy(update={"ffn_width": 100})
    save_dit(tmp_path / "wide.safetensors", random_dit(wider))
    words = ("step", "--config", "smoke", "--model.pretrained_model_path", str(tmp_path / "wide.safetensors"))
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: .*wide.safetensors does not fit the model: \d+ of another shape", error)


def test_a_forward_pass_alone():
    printed = step("--forward")
    check_timed(printed, "build and initialise in float16", "first forward", "second forward")
    assert f"velocity {LATENT}" in printed
    (size,) = numbers(printed, r"root mean square (\S+)")
    assert 0.1 < size < 10  # that of a layer of random weights of its variance


def test_an_update_of_a_stages_recipe(tmp_path):
    """Stage 2 of a new transformer, whose velocity is zero, on clips of one of its sizes, a micro-batch of them."""
    alone = ("--launch.worker_num", "1", "--launch.local_worker_num", "1")
    whole = ("--train.sequence_parallel.shards", "1", "--stages.3.train.sequence_parallel.shards", "1")
    output = tmp_path / "step.json"
    accumulated = ("--train.settings.gradient_accumulation_steps", "2")
    printed = step("--stage", "2", *alone, *whole, *accumulated, "--output", str(output))
    check_timed(printed, "build and initialise", "compile", "an update")
    recipe = PARAMS.recipes[2]
    frames, height, width = map(int, re.search(r"clip (\d+)x(\d+)x(\d+), rank 0 of 1", printed).groups())
    assert (frames, height, width) in recipe.dataset.buckets
    batch = recipe.dataloader.batch_size
    samples = batch.image_batch_size if frames == 1 else batch.video_batch_size
    shape = (samples, 16, -(-frames // 8), height // 8, width // 8)
    rng = np.random.default_rng(PARAMS.seed)
    latent, noise = (rng.standard_normal(shape, np.float32) for _ in range(2))
    (loss,) = numbers(printed, r"loss (\S+),")
    assert loss == pytest.approx(np.mean((latent - (1 - 1e-5) * noise) ** 2), abs=1e-4)
    assert numbers(printed, r"gradient norm (\S+)")[0] > 0
    found = json.loads(output.read_text())
    assert (found["clip"], found["workers"]) == (f"{samples} x {frames}x{height}x{width}", 1)
    assert found["counted_bytes"] > 0 and found["measured_bytes"] > 0


@pytest.mark.parametrize("phase", ["image", "opl-on"])
def test_a_step_of_the_autoencoders_training(tmp_path, phase):
    output = tmp_path / "step.json"
    small = ("--tae.video.size", "[32, 32]", "--tae.vae_checkpoint", "")
    command = (sys.executable, "-m", "moviegen", "step", "--config", "smoke", "--phase", phase, *small)
    done = subprocess.run((*command, "--output", str(output)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check_timed(done.stdout, "build and initialise", "compile", "an update")
    assert re.search(r"memory of it: counted [\d,]+ MiB, measured [\d,]+ MiB", done.stdout)
    stage = PARAMS.tae.image if phase == "image" else PARAMS.tae.video
    height, width = stage.size if phase == "image" else (32, 32)
    found = json.loads(output.read_text())
    assert found["clip"] == f"{stage.batch_size} x {stage.frames}x{height}x{width}"
    assert found["counted_bytes"] == pytest.approx(found["measured_bytes"], abs=32 * 2**20)


def test_an_update_by_fewer_workers_than_its_recipe_asks_for_is_refused(capsys):
    words = ("step", "--config", "smoke", "--stage", "1", "--launch.worker_num", "2", "--launch.local_worker_num", "2")
    assert main((*words, "--train.worker_num", "null")) == 2
    assert "stage 1 asks for 2 workers and was started with 1: use msrun" in capsys.readouterr().err
