"""`tests.parity.shipping`, which needs no PyTorch: it starts by its command, and measures what a stage measures."""

import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, runs
from moviegen.device.world import World
from moviegen.flow.path import FlowMatchingLoss
from moviegen.programs import train_dit
from tests import small_runs
from tests.parity import shipping

CAPTIONS = ["a dog", "a red car", "a cat"]


def test_it_starts_by_its_command():
    """MindSpore must not be imported before moviegen, also where a file's own imports come in alphabetical order."""
    command = (sys.executable, "-m", "tests.parity.shipping", "--help")
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "FOLDER --config small" in done.stdout


@pytest.mark.usefixtures("eager")
def test_its_validation_loss_is_the_mean_over_the_stages_held_out_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    params = config.load("smoke")
    small_runs.write_data(params, CAPTIONS)
    small_runs.write_text(params, CAPTIONS)
    small_runs.write_tae(params)
    small_runs.write_latents(params)
    stage, dit = runs.find(params, "stage3"), small_runs.random_dit(params.dit_config(3))
    losses, sizes = [], []
    for batch in train_dit.validation_batches(stage, 3, train_dit.Caches.of(stage, 3), World()):
        losses.append(float(FlowMatchingLoss(dit)(*map(ms.Tensor, batch))))  # of latents, and the mean of the batch
        sizes.append(len(batch[0]))
    found = shipping.validation_loss(dit, runs.find(params, "retrieval"))
    assert found == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert found > 1  # of a network that has learnt nothing
