"""Recomputed blocks: activations are forgotten and made again, and no gradient changes."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow.path import FlowMatchingLoss
from moviegen.parallel.zero import Zero
from moviegen.runs.weights import assign
from moviegen.train.step import Backward, Gradients
from tests.small_runs import random_dit


@pytest.fixture(scope="module")
def config(small):
    return small.model_copy(update={"num_layers": 2})


@pytest.fixture(scope="module")
def weights(config):
    return {name: weight.asnumpy() for name, weight in random_dit(config).parameters_and_names()}


def loss_and_gradients(config, weights, recompute):
    dit = DiT(config)
    assign(dict(dit.parameters_and_names()), weights, "random")
    dit.recompute_blocks(*recompute)
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((2, 2, config.latent_channels, 1, 4, 6), np.float32)
    texts = [rng.standard_normal((2, 2, width), np.float32) for width in config.text_widths]
    keep = np.array([[1, 1, 1, 0, 1, 1]] * 2, bool)
    batch = (*latents, np.array([0.2, 0.7], np.float32), *texts, keep)
    zero = Zero(dit, 0, World())
    gradients = Gradients(zero)
    (loss,) = Backward(FlowMatchingLoss(dit), zero, gradients, has_terms=False)(*map(ms.Tensor, batch))
    return float(loss), dict(zip(zero.weights, (one.asnumpy() for one in gradients.sums), strict=True))


@pytest.fixture(scope="module")
def plain(config, weights):
    return loss_and_gradients(config, weights, recompute=(0,))


@pytest.mark.parametrize("recompute", [(1, False), (2, True)])
def test_no_gradient_changes(recompute, config, weights, plain):
    loss, gradients = loss_and_gradients(config, weights, recompute)
    assert loss == pytest.approx(plain[0], rel=1e-6)
    for name, wanted in plain[1].items():
        assert np.abs(gradients[name] - wanted).max() <= 1e-6 * np.abs(wanted).max(), name


@pytest.mark.parametrize(("every_nth", "places"), [(0, []), (1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2])])
def test_every_nth_block_is_marked_with_all_that_is_in_it(every_nth, places, config):
    dit = DiT(config.model_copy(update={"num_layers": 4}))
    dit.recompute_blocks(every_nth)
    marks = [
        {(cell.get_scope() or "").startswith("recompute") for _, cell in block.cells_and_names()}
        for block in dit.layers
    ]
    assert marks == [{place in places} for place in range(4)]


@pytest.mark.parametrize("keep", [True, False])
def test_attention_is_left_out_where_it_is_kept(keep, config):
    """As on Ascend, where attention is one kernel; on CPU it recomputes its scores by itself."""
    dit = DiT(config)
    kernels = [attention for block in dit.layers for attention in (block.self_attn, block.cross_attn)]
    for one in kernels:
        one.attention.is_flash, one.attention.flash = True, ops.MatMul()  # any operator can be marked
    dit.recompute_blocks(1, keep)
    marks = [one.attention.flash.get_attr_dict().get("recompute") for one in kernels]
    assert marks == [False if keep else None] * 4
