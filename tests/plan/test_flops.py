"""Counts by formula against the networks' operators: the shapes of what these get and give, never the config."""

import collections
import math
import re

import mindspore as ms
import numpy as np
import pytest

from moviegen import config, plan
from moviegen.config import DiTConfig, TAEConfig
from moviegen.device import compiled
from moviegen.device.attention import Attention
from moviegen.device.kernels import Product
from moviegen.device.video import Convolution, TemporalConvolution
from moviegen.device.world import World
from moviegen.dit.layers import SwiGLU
from moviegen.dit.model import DiT
from moviegen.flow.path import FlowMatchingLoss
from moviegen.parallel.zero import Zero
from moviegen.tae.layers import Projection, SpatialAttention
from moviegen.tae.model import TAE
from moviegen.train.step import Backward, Gradients

RNG = np.random.default_rng(0)
BATCH = 2
DITS = {
    "all texts": DiTConfig(
        width=16, ffn_width=24, num_heads=2, num_layers=2, max_size=(3, 4, 6), latent_channels=4,
        text_widths=(6, 5, 4), frequency_width=8,
    ),
    "one text": DiTConfig(
        width=24, ffn_width=40, num_heads=3, num_layers=1, max_size=(3, 4, 6), latent_channels=3,
        text_widths=(0, 7, 0), frequency_width=10,
    ),
}  # fmt: skip
LENGTHS = {"all texts": (3, 2, 5), "one text": (5,)}
TAES = {
    "image": TAEConfig(base_channels=4, channel_multipliers=(1, 1, 2, 2), num_groups=2, is_temporal=False),
    "temporal": TAEConfig(
        base_channels=4, channel_multipliers=(1, 2, 2, 4), num_res_blocks=1, num_groups=4, latent_channels=3
    ),
    "zeros": TAEConfig(
        base_channels=6, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, num_groups=3,
        temporal_upsample_padding="zeros",
    ),
}  # fmt: skip


def of_product(cell, inputs, out):
    return 2 * inputs[0].size * inputs[1].shape[0], inputs[1]


def of_dense(cell, inputs, out):
    return 2 * inputs[0].size * cell.weight.shape[0], cell.weight


def of_convolution(cell, inputs, out):
    return 2 * out.size * math.prod(cell.weight.shape[1:]), cell.weight


def of_temporal_convolution(cell, inputs, out):
    return 2 * out.size * math.prod(inputs[1].shape[1:]), inputs[1]


def of_attention(cell, inputs, out):
    (batch, queries, heads, width), keys, values = inputs[0].shape, inputs[1].shape[1], inputs[2].shape[3]
    return 2 * batch * heads * queries * keys * (width + values), None


OPERATORS = {
    Product: ("projections", of_product),
    Projection: ("projections", of_dense),
    Attention: ("attention", of_attention),
    Convolution: ("convolutions", of_convolution),
    TemporalConvolution: ("convolutions", of_temporal_convolution),
}
WITHIN = {SwiGLU: "feed_forward", SpatialAttention: "projections"}


class Counter:
    """Adds up what the Cells of a network multiply from now on.

    Cells, not primitives: MindSpore's form writes means and broadcasts as products with constant rows and columns, and
    a mask as one more column; temporal up-sampling shares products. None of that is the network's own arithmetic.
    """

    def __init__(self, network):
        self.flops, self.weights, inner = collections.Counter(), set(), {}
        for _, cell in network.cells_and_names():
            if type(cell) in WITHIN:  # it comes before what it holds
                parts = [part for _, part in cell.cells_and_names() if type(part) is not Attention]
                inner |= dict.fromkeys(map(id, parts), WITHIN[type(cell)])
            if type(cell) in OPERATORS:
                kind, count = OPERATORS[type(cell)]
                cell.register_forward_hook(self._hook(inner.get(id(cell), kind), count))

    def _hook(self, kind, count):
        def add(cell, inputs, out):
            flops, weight = count(cell, inputs, out)
            self.flops[kind] += flops
            self.weights.add(id(weight))

        return add

    def check(self, network, formula):
        """All that the formula says has been multiplied, by kind, and every matrix and kernel has taken part."""
        assert plan.Flops(**self.flops) == BATCH * formula
        weights = {name: weight for name, weight in network.parameters_and_names() if weight.ndim > 1}
        unused = [name for name, weight in weights.items() if id(weight) not in self.weights]
        assert [name for name in unused if not name.endswith("_table")] == []  # of modulation and positions


@pytest.fixture
def mindspore_form(monkeypatch):
    monkeypatch.setenv(compiled.CHOICE, compiled.MINDSPORE)


def tensor(*shape):
    return ms.Tensor(RNG.standard_normal(shape), ms.float32)


def texts(name):
    return [tensor(BATCH, *shape) for shape in zip(LENGTHS[name], DITS[name].embedding_widths, strict=True)]


@pytest.mark.parametrize(("latent", "tokens", "has_mask"), [((1, 4, 6), 6, False), ((3, 6, 2), 9, True)])
@pytest.mark.parametrize("name", DITS)
def test_the_transformers_operators_do_what_is_counted(name, latent, tokens, has_mask, eager, mindspore_form):
    dit, text = DiT(DITS[name]), texts(name)
    if has_mask:  # which saves nothing
        text.append(ms.Tensor([[True] * (sum(LENGTHS[name]) - 1) + [False]] * BATCH))
    counter = Counter(dit)
    dit(tensor(BATCH, DITS[name].latent_channels, *latent), ms.Tensor([3.0, 500.0], ms.float32), *text)
    counter.check(dit, plan.dit_forward(DITS[name], tokens, LENGTHS[name]))


@pytest.mark.parametrize("frames", [1, 6, 9])
@pytest.mark.parametrize("name", TAES)
def test_the_encoders_operators_do_what_is_counted(name, frames, eager, mindspore_form):
    tae = TAE(TAES[name])
    counter = Counter(tae.encoder)
    tae.encode(tensor(BATCH, 3, frames, 8, 16))
    counter.check(tae.encoder, plan.tae_encode(TAES[name], frames, 8, 16))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", TAES)
def test_the_decoders_operators_do_what_is_counted(name, frames, eager, mindspore_form):
    """Also for frames that are dropped."""
    tae = TAE(TAES[name])
    counter = Counter(tae.decoder)
    tae.decode(tensor(BATCH, TAES[name].latent_channels, frames, 2, 1), 1)
    counter.check(tae.decoder, plan.tae_decode(TAES[name], frames, 2, 1))


PRODUCT = re.compile(
    r"= PrimFunc_(?:Batch)?MatMul\(.*?, Bool\(([01])\), Bool\([01]\)\) prim.*?\n +: \(<(.*?)>, .*?\) -> \(<(.*?)>\)\n",
    re.DOTALL,
)


def multiplied(graph, head_width):
    """FLOPs of the matrix products in a graph as MindSpore executes and prints it, see `Counter` for those left out."""
    flops = 0
    for is_transposed, left, out in PRODUCT.findall(graph):
        (*_, rows, columns), shape = ([int(side) for side in re.findall(r"\d+(?=[,)])", one)] for one in (left, out))
        summed = rows if int(is_transposed) else columns
        if 1 not in (summed, *shape[-2:]):
            summed -= summed == head_width + 1  # row sums of the softmax's gradient are one more column
            flops += 2 * math.prod(shape) * summed
    return flops


@pytest.mark.parametrize("every", [0, 1])
def test_a_training_steps_graph_does_what_is_counted(every, mindspore_form, tmp_path):
    """Backward, no gradients of what comes from outside, attention's scores once more, and recomputed blocks."""
    shape, dit = DITS["all texts"], DiT(DITS["all texts"])
    dit.recompute_blocks(every)
    zero = Zero(dit, 0, World())
    latents = [tensor(BATCH, shape.latent_channels, 1, 4, 6) for _ in range(2)]
    ms.set_context(save_graphs=1, save_graphs_path=str(tmp_path))
    try:
        backward = Backward(FlowMatchingLoss(dit), zero, Gradients(zero), has_terms=False)
        backward(*latents, ms.Tensor([0.2, 0.7], ms.float32), *texts("all texts"))
    finally:
        ms.set_context(save_graphs=0)
    (graph,) = tmp_path.rglob("graph_build*.ir")
    counted = plan.dit_training(shape, 6, LENGTHS["all texts"], every)
    found = multiplied(graph.read_text(encoding="utf-8"), shape.width // shape.num_heads)
    assert found == BATCH * counted.total


@pytest.mark.parametrize("name", [*DITS, *TAES])
def test_networks_have_the_parameters_that_are_counted(name):
    network = DiT(DITS[name]) if name in DITS else TAE(TAES[name])
    found = sum(parameter.size for parameter in network.trainable_params())
    if name in DITS:
        assert plan.parameter_count(DITS[name]) + plan.position_count(DITS[name]) == found
    else:
        assert plan.tae_parameter_count(TAES[name]) == found


HAND = DiTConfig(
    width=4, ffn_width=6, num_heads=2, num_layers=1, max_size=(1, 3, 1), latent_channels=2, text_widths=(5, 0, 0),
    frequency_width=8,
)  # fmt: skip


def test_a_block_by_hand():
    # D = 4, F = 6, N = 3, M = 2. A linear layer D x D: 16 multiply-adds a token
    own, cross = 4 * 3 * 16, (2 * 3 + 2 * 2) * 16  # q, k, v, out; q and out of N, k and v of M
    scores = 3 * 3 * 4 + 3 * 2 * 4  # N x N and N x M, D numbers each; then as many with the values
    swiglu = 3 * (4 * 6 + 4 * 6 + 6 * 4)
    block = plan.Flops(projections=2 * (own + cross), attention=2 * 2 * scores, feed_forward=2 * swiglu)
    assert (block.projections, block.attention, block.feed_forward) == (704, 240, 432)
    assert plan.dit_block(HAND, 3, 2) == block
    assert plan.block_flops(HAND, 3, 2) == block.total == 704 + 240 + 432


def test_a_transformer_by_hand():
    # patches of 2 x 2 x 2 channels: 8 -> D; sinusoids 8 -> D -> D, D -> 6 D; texts 5 -> D; D -> 8
    first = 3 * 8 * 4 + 8 * 4 + 2 * 5 * 4
    rest = 4 * 4 + 4 * 24 + 3 * 4 * 8
    ends = plan.Flops(projections=2 * (first + rest))
    forward = plan.dit_forward(HAND, 3, (2,))
    assert forward == plan.dit_block(HAND, 3, 2) + ends
    plain, recomputed = (plan.dit_training(HAND, 3, (2,), every) for every in (0, 1))
    assert plain == 3 * forward + plan.Flops(projections=-2 * first, recomputed=240 // 2)
    assert recomputed == plain + plan.Flops(recomputed=704 + 240 + 432)
    assert plan.dit_training(HAND, 3, (2,), 1, keep_attention=True).recomputed == 240 // 2 + 704 + 432
    assert plan.step_flops(HAND, 3, (2,), 1) == recomputed.total - 240 // 2


@pytest.mark.parametrize(("name", "latent_frames"), [("image", 9), ("temporal", 2)])
def test_a_training_clip_is_encoded_and_decoded_three_times_but_for_the_videos_gradient(name, latent_frames):
    shape = TAES[name]
    forward = plan.tae_encode(shape, 9, 16, 8) + plan.tae_decode(shape, latent_frames, 2, 1)
    first = 2 * (3 * 3 * 3) * 4 * (9 * 16 * 8)
    wanted = 3 * forward + plan.Flops(convolutions=-first, recomputed=forward.attention // 2)
    assert plan.tae_training(shape, 9, 16, 8) == wanted


def test_ranks_that_share_a_sample_pad_its_tokens_and_repeat_its_text():
    numbers = {"train.sequence_parallel.shards": 2, "train.settings.gradient_accumulation_steps": 3}
    params = config.load("smoke", {**numbers, "launch.worker_num": 4, "launch.local_worker_num": 4})
    cost, shape, lengths = plan.stage_cost(params, 1), params.dit_config(1), params.text.lengths
    assert cost.tokens % 2 == 1
    shared, repeated = (plan.dit_training(shape, visual, lengths) for visual in (cost.tokens + 1, 0))
    samples = 3 * 2 * params.recipes[1].dataloader.batch_size.image_batch_size
    assert cost.arithmetic == samples * (shared + repeated)
    assert cost.flops == cost.arithmetic.total
