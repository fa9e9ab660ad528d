"""The transformer beside its PyTorch twin: velocity and gradients."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch

from moviegen.config import DiTConfig
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow import path as flow
from moviegen.parallel.zero import Zero
from moviegen.runs.weights import assign
from moviegen.train.step import Backward, Gradients
from tests.parity.comparing import random_weights
from tests.parity.torch_dit import TorchDiT

CONFIG = DiTConfig(
    width=64, ffn_width=176, num_heads=4, num_layers=2, max_size=(4, 8, 8), text_widths=(32, 24, 16), frequency_width=32
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def pair():
    dit = DiT(CONFIG)
    parameters = dict(dit.parameters_and_names())
    weights = random_weights({name: tuple(parameter.shape) for name, parameter in parameters.items()})
    assign(parameters, weights, "random")
    twin = TorchDiT(SimpleNamespace(**CONFIG.model_dump()))
    twin.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return dit, twin


def inputs(frames):
    latent = RNG.standard_normal((2, 16, frames, 8, 12)).astype(np.float32)
    texts = [
        RNG.standard_normal((2, length, width)).astype(np.float32) for length, width in ((5, 32), (4, 24), (7, 16))
    ]
    mask = RNG.random((2, 16)) < 0.7
    mask[:, 0] = True
    return latent, np.array([30.0, 800.0], np.float32), texts, mask


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("is_masked", [False, True])
def test_velocity(pair, frames, is_masked):
    latent, timestep, texts, mask = inputs(frames)
    ours = pair[0](*map(ms.Tensor, (latent, timestep, *texts)), ms.Tensor(mask) if is_masked else None).asnumpy()
    with torch.inference_mode():
        arrays = map(torch.tensor, (latent, timestep, *texts))
        theirs = pair[1](*arrays, mask=torch.tensor(mask) if is_masked else None).numpy()
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_gradients_of_the_flow_matching_loss(pair):
    dit, twin = pair
    latent, _, texts, mask = inputs(2)
    noise, t = RNG.standard_normal(latent.shape).astype(np.float32), np.array([0.3, 0.8], np.float32)
    zero = Zero(dit, 0, World())
    gradients = Gradients(zero)
    backward = Backward(flow.FlowMatchingLoss(dit), zero, gradients, has_terms=False)
    (loss,) = backward(*map(ms.Tensor, (latent, noise, t, *texts, mask)))
    x_1, x_0, times = torch.tensor(latent), torch.tensor(noise), torch.tensor(t).view(2, 1, 1, 1, 1)
    x_t = times * x_1 + (1 - (1 - 1e-5) * times) * x_0
    with torch.enable_grad():
        velocity = twin(x_t, 1000 * (1 - torch.tensor(t)), *map(torch.tensor, texts), mask=torch.tensor(mask))
        theirs = ((velocity - (x_1 - (1 - 1e-5) * x_0)) ** 2).mean()
        theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-4)
    wanted = {name: parameter.grad.numpy() for name, parameter in twin.named_parameters()}
    for name, gradient in zip(zero.weights, gradients.sums, strict=True):
        assert np.abs(gradient.asnumpy() - wanted[name]).max() <= 1e-4 * np.abs(wanted[name]).max(), name
