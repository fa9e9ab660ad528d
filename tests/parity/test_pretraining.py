"""What the twins are trained by: the same losses, the same views, and weights that come back."""

import itertools
import json
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch
from torch import nn

from moviegen.config import DiTConfig, TAEConfig, TAELoss
from moviegen.data import pixels
from moviegen.dit.model import DiT
from moviegen.runs.weights import assign, load_arrays, to_arrays
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import LPIPS
from moviegen.tae.model import TAE
from tests.parity import encoding, pretraining
from tests.parity.comparing import assert_equal, random_weights
from tests.parity.names import RECORD, WEIGHTS
from tests.parity.torch_dit import TorchDiT
from tests.parity.torch_lpips import TorchLPIPS
from tests.parity.torch_tae import TorchTAE
from tests.parity.training_data import in_8_bits

RNG = np.random.default_rng(0)
TAE_CONFIG = TAEConfig(base_channels=8, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=4)
DIT = DiTConfig(
    width=32, ffn_width=48, num_heads=2, num_layers=1, max_size=(2, 4, 4), text_widths=(24, 0, 0), frequency_width=32
)


def drawn(network):
    shapes = {name: tuple(parameter.shape) for name, parameter in network.parameters_and_names()}
    weights = random_weights(shapes)
    assign(dict(network.parameters_and_names()), weights, "random")
    return weights


def test_the_autoencoders_losses():
    tae, lpips = TAE(TAE_CONFIG), LPIPS()
    shapes = {name: tuple(parameter.shape) for name, parameter in lpips.published_names()}
    published = {name: abs(array) if "lin" in name else array for name, array in random_weights(shapes, 1).items()}
    assign(dict(lpips.published_names()), published, "random")
    twin = TorchTAE(SimpleNamespace(**TAE_CONFIG.model_dump()))
    twin.load(drawn(tae))
    video = RNG.uniform(-1, 1, (1, 3, 9, 16, 16)).astype(np.float32)
    noise = RNG.standard_normal((1, 16, 2, 2, 2)).astype(np.float32)
    recipe, seen = pretraining.RECIPES["tae"], [1, 5, 8]
    ours = TAETrainingLoss(tae, TAELoss(perceptual=recipe.perceptual, kl=recipe.kl), lpips, has_outlier_penalty=False)
    found = ours(ms.Tensor(video), ms.Tensor(noise), ms.Tensor(seen, ms.int32))
    with torch.inference_mode():
        theirs = pretraining.tae_losses(twin, TorchLPIPS(published), recipe, *map(torch.tensor, (video, noise)), seen)
    wanted = [theirs["total"], *(theirs[term] for term in ours.terms)]
    assert [float(value) for value in found] == pytest.approx([value.item() for value in wanted], rel=1e-4)


def test_views_are_those_of_the_clips():
    for shape, size in (((36, 64, 3), (16, 24)), ((64, 36, 3), (24, 16)), ((30, 30, 3), (16, 24))):
        frame = RNG.integers(0, 256, shape, np.uint8)
        (wanted,) = pixels.cover([frame], *size)
        np.testing.assert_array_equal(encoding.cover(frame, *size), wanted)


def test_a_kernel_in_8_bits_is_within_half_a_step():
    kernel = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    whole, scale = in_8_bits(kernel)
    assert whole.dtype == np.int8 and abs(whole).max() == 127
    assert (abs(whole * scale - kernel) <= scale * 0.5001).all()


def test_crops_have_the_video_s_own_pixels_or_fewer():
    video = torch.arange(20 * 3 * 40 * 60, dtype=torch.float32).remainder(256).to(torch.uint8).view(20, 3, 40, 60)
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = pretraining.crop(video, 16, (32, 32), rng)
        assert view.shape == (3, 16, 32, 32) and -1 <= view.min() < view.max() <= 1.00001
    (same,) = {float((pretraining.crop(video, 20, (40, 60), rng).transpose(0, 1) * 127.5 + 127.5 - video).abs().max())}
    assert same < 1e-3


def test_a_transformer_learns_and_comes_back(tmp_path, monkeypatch):
    """Of one clip, by a clock that ticks when it is looked at; what it leaves is what MindSpore's transformer takes."""
    dit = DiT(DIT)
    twin = TorchDiT(SimpleNamespace(**DIT.model_dump()))
    twin.load_state_dict({n: torch.tensor(a) for n, a in to_arrays(dict(dit.parameters_and_names())).items()})
    recipe = pretraining.TransformerRecipe(
        lr=3e-3, warmup_steps=2, ema_decay=0.9, batch_size=4, image_batch_size=4, image_ratio=0.0
    )
    clip = torch.tensor(RNG.standard_normal((1, 16, 1, 4, 4)), dtype=torch.float32).expand(4, -1, -1, -1, -1)
    text, mask = torch.zeros(4, 3, 24), torch.ones(4, 3, dtype=torch.bool)
    losses = []

    def step():
        t = pretraining.training_times(4, recipe.time_shift, torch.device("cpu"))
        loss = pretraining.flow_matching_loss(twin, clip, torch.randn_like(clip), t, text, mask)
        loss.backward()
        losses.append(loss.item())
        return {"total": loss}

    ticks = itertools.count()
    monkeypatch.setattr(pretraining.time, "perf_counter", lambda: float(next(ticks)))
    with torch.enable_grad():
        pretraining.Training(twin, recipe, 300.0, tmp_path, {"program": "test"}).run(step)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    arrays, _ = load_arrays(tmp_path / WEIGHTS)
    assign(dict(dit.parameters_and_names()), arrays, WEIGHTS)
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["steps"] == len(losses) > 50 and record["seconds"] >= 300
    noise, t = RNG.standard_normal((1, 16, 1, 4, 4)).astype(np.float32), np.float32([300.0])
    ours = dit(*map(ms.Tensor, (noise, t, text[:1].numpy(), mask[:1].numpy()))).asnumpy()
    average = TorchDiT(SimpleNamespace(**DIT.model_dump()))
    average.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    with torch.inference_mode():
        assert_equal(ours, average(*map(torch.tensor, (noise, t)), text[:1], mask=mask[:1]).numpy())


def test_the_rate_falls_to_zero_with_the_time(tmp_path, monkeypatch):
    recipe = pretraining.RECIPES["transformer"]
    job = pretraining.Training(nn.Linear(2, 2), recipe, 10.0, tmp_path, {})
    job.steps = recipe.warmup_steps
    rates = []
    for passed in (0.0, 5.0, 10.0, 20.0):
        monkeypatch.setattr(pretraining.time, "perf_counter", lambda passed=passed: job.started + passed)
        rates.append(job.rate())
    assert rates == pytest.approx([recipe.lr, recipe.lr / 2, 0.0, 0.0])
