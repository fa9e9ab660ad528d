"""Sampling: Euler's method against solutions in closed form, guidance against NumPy, noise that the seed decides."""

import itertools
import math
from fractions import Fraction

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen import config, device, plan
from moviegen.config import ConfigError, DiTConfig
from moviegen.dit.inference import load_dit, load_stage
from moviegen.dit.model import DiT
from moviegen.dit.weights import load_weights, save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import (
    GuidedVelocity,
    Prompt,
    Sampler,
    VelocityCell,
    asked_texts,
    batches,
    euler,
    full_steps,
    noise_for,
    numbered,
)
from tests.small_runs import random_dit

X = np.random.default_rng(0).standard_normal((1, 16, 2, 4, 6)).astype(np.float32)
GRIDS = [(name, steps) for name in schedule.SCHEDULES for steps in (2, 7, 50)]


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_constant_velocity_is_followed_exactly(name, steps):
    slope = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    end = euler(X, lambda x, t: slope, schedule.get(name, steps))
    np.testing.assert_allclose(end, X + slope, atol=1e-5)
    assert end.dtype == np.float32


@pytest.mark.parametrize(("name", "steps"), GRIDS)
def test_linear_velocity_gives_eulers_product(name, steps):
    times = schedule.get(name, steps)
    factor = math.prod(1 - 0.8 * (float(b) - float(a)) for a, b in itertools.pairwise(times))
    np.testing.assert_allclose(euler(X, lambda x, t: -0.8 * x, times), factor * X, rtol=1e-5)


# the sum of i^p below N over N^(p + 1), by Faulhaber's formulas
LEFT_SUMS = {
    0: lambda n: Fraction(1),
    1: lambda n: Fraction(n - 1, 2 * n),
    2: lambda n: Fraction((n - 1) * (2 * n - 1), 6 * n * n),
    3: lambda n: Fraction((n - 1) ** 2, 4 * n * n),
}


@pytest.mark.parametrize("power", LEFT_SUMS)
@pytest.mark.parametrize("steps", (2, 7, 50))
def test_polynomial_velocity_gives_its_left_sum(power, steps):
    end = euler(np.float64([2]), lambda x, t: np.float64([3 * t**power]), schedule.linear(steps))
    # steps are taken in float32, which knows 1/7 to 1e-8
    assert end[0] == pytest.approx(float(2 + 3 * LEFT_SUMS[power](steps)), abs=1e-6)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_polynomial_velocity_is_integrated_in_the_limit(name):
    errors = [
        1 - float(euler(np.float64([0]), lambda x, t: np.float64([4 * t**3]), schedule.get(name, steps))[0])
        for steps in (10, 50, 250)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_every_step_is_told():
    told = []
    euler(X, lambda x, t: x, schedule.linear(7), lambda: told.append(1))
    assert len(told) == 7


def test_velocity_is_asked_at_the_start_of_each_step():
    asked = []

    def velocity(x, t):
        asked.append((float(x[0]), t))
        return np.float32([1 + t])

    euler(np.float32([0]), velocity, np.array([0.0, 0.25, 0.75, 1.0]))
    # x rises by 0.25 * 1, then 0.5 * 1.25
    assert asked == [(0.0, 0.0), (0.25, 0.25), (0.875, 0.75)]


def test_start_is_left_as_it_was():
    start = X.copy()
    euler(start, lambda x, t: x, schedule.linear(3))
    assert np.array_equal(start, X)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_is_refused_where_it_comes(value):
    asked = []

    def velocity(x, t):
        asked.append(t)
        return np.where(np.arange(x.size).reshape(x.shape) == 7, np.float32(value if t > 0.3 else 0), x)

    with pytest.raises(ConfigError, match=r"latent at t = 0.75 .*not finite: the transformer's weights"):
        euler(X, velocity, schedule.linear(4))
    assert asked == [0, 0.25, 0.5]


# the linear part of linear-quadratic has steps of 1/1000 whatever their number: refined with them, so that all shrink
@pytest.mark.parametrize("grid", [schedule.linear, lambda steps: schedule.linear_quadratic(steps, 20 * steps)])
def test_half_the_step_halves_the_error(grid):
    # dx/dt = x + t, x(0) = 1: x(1) = 2e - 2
    errors = [
        2 * math.e - 2 - float(euler(np.float64([1]), lambda x, t: x + t, grid(steps))[0]) for steps in (100, 200, 400)
    ]
    assert errors[0] > 0.01
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], abs=0.1)


def test_stops_at_the_last_time():
    assert euler(np.float32([0]), lambda x, t: np.float32([1]), np.array([0, 0.5]))[0] == np.float32(0.5)


# --- guidance ---


class Stub(nn.Cell):
    """A network that shows what it was given: x scaled, plus time, plus the sum of the kept tokens of its text."""

    def construct(self, x, t, ul2, metaclip, byt5, keep):
        told = ul2.mean((1, 2)) + 2 * metaclip.mean((1, 2)) + 3 * byt5.mean((1, 2)) + keep.astype(ms.float32).sum(1)
        return 0.5 * x + (0.001 * t + told).reshape(-1, 1, 1, 1, 1)


@pytest.fixture
def embeddings():
    """One caption's, then the empty one's; networks run as they do when sampling."""
    device.start(0)
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((2, length, 4)).astype(np.float32) for length in (3, 2, 5)]
    return (*arrays, np.arange(20).reshape(2, 10) % 3 == 0)


def expected(x, t, embeddings, guidance):
    ul2, metaclip, byt5, keep = (np.asarray(array, np.float64) for array in embeddings)
    told = ul2.mean((1, 2)) + 2 * metaclip.mean((1, 2)) + 3 * byt5.mean((1, 2)) + keep.sum(1)
    with_caption, without = (0.5 * x + 0.001 * 1000 * (1 - t) + one for one in told)
    return (1 - guidance) * without + guidance * with_caption


def asked_of(embeddings, guidance):
    """What is told the network of one caption and the empty one: as `asked_texts` orders them."""
    rows = [["", "ours"].index(text) for text in asked_texts(["ours"], guidance)]
    return tuple(array[[1 - row for row in rows]] for array in embeddings)


@pytest.mark.parametrize("guidance", [0, 1, 3])
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_guidance_moves_from_the_empty_caption_to_ours_and_beyond(embeddings, guidance, t):
    velocity = GuidedVelocity(VelocityCell(Stub()), guidance, asked_of(embeddings, guidance))
    found = velocity(X, t)
    np.testing.assert_allclose(found, expected(X, t, embeddings, guidance), atol=1e-5)
    assert found.shape == X.shape
    assert found.dtype == np.float32


class Recorder(Stub):
    """Keeps how many samples each call asks for, while networks run operator by operator."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def construct(self, x, t, ul2, metaclip, byt5, keep):
        self.asked.append([len(array) for array in (x, t, ul2, metaclip, byt5, keep)])
        return super().construct(x, t, ul2, metaclip, byt5, keep)


@pytest.mark.parametrize(("guidance", "samples"), [(3.0, 6), (1.0, 3), (0.0, 3)])
def test_one_call_of_the_network_answers_for_what_guidance_asks(embeddings, eager, guidance, samples):
    network = Recorder()
    three = tuple(np.repeat(array, 3, 0) for array in asked_of(embeddings, guidance))
    GuidedVelocity(VelocityCell(network), guidance, three)(np.repeat(X, 3, 0), 0.5)
    assert network.asked == [[samples] * 6]


def test_a_gated_step_asks_with_the_caption_alone_and_reuses_the_last_difference(embeddings, eager):
    network, own = Recorder(), asked_of(embeddings, 3.0)
    gated = GuidedVelocity(VelocityCell(network), 3.0, own, full_steps=2)
    times = (0.0, 0.25, 0.5, 0.75)
    found = [gated(X, t) for t in times]
    assert [samples for samples, *_ in network.asked] == [2, 2, 1, 1]
    conditioned = [expected(X, t, embeddings, 1) for t in times]
    difference = conditioned[1] - expected(X, times[1], embeddings, 0)
    for place, velocity in enumerate(found):
        reused = conditioned[place] + 2 * difference
        wanted = expected(X, times[place], embeddings, 3) if place < 2 else reused
        np.testing.assert_allclose(velocity, wanted, atol=1e-5)


def test_the_gate_is_a_share_of_the_steps():
    assert [full_steps(50, gate) for gate in (1, 0.5, 0.01)] == [None, 25, 1]
    assert full_steps(5, 0.5) == 3


def test_guidance_values_differ_in_this_test(embeddings):
    ends = [expected(X, 0.5, embeddings, guidance) for guidance in (0, 1, 3)]
    assert min(np.abs(ends[0] - ends[1]).min(), np.abs(ends[1] - ends[2]).min()) > 0.1


def test_two_captions_at_once_are_each_guided_alone(embeddings):
    two = tuple(
        np.concatenate((array[:1], 2 * array[:1] if array.dtype != bool else ~array[:1])) for array in embeddings
    )
    empty = tuple(np.concatenate((array[1:], array[1:])) for array in embeddings)
    x = np.concatenate((X, -X))
    arrays = tuple(np.concatenate(pair) for pair in zip(two, empty, strict=True))
    found = GuidedVelocity(VelocityCell(Stub()), 3.0, arrays)(x, 0.5)
    for place in range(2):
        pair = tuple(np.stack((t[place], e[place])) for t, e in zip(two, empty, strict=True))
        np.testing.assert_allclose(found[place : place + 1], expected(x[place : place + 1], 0.5, pair, 3), atol=1e-5)


# --- noise ---


def test_noise_follows_from_the_seed_alone():
    np.random.seed(1)
    ms.set_seed(1)
    one = noise_for(42, (16, 2, 6, 10))
    np.random.seed(2)
    ms.set_seed(2)
    noise_for(7, (3,))
    assert np.array_equal(noise_for(42, (16, 2, 6, 10)), one)
    assert one.shape == (1, 16, 2, 6, 10)
    assert one.dtype == np.float32
    assert np.abs(noise_for(43, (16, 2, 6, 10)) - one).max() > 1


def test_noise_is_standard_normal():
    noise = noise_for(0, (100_000,)).ravel()
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (np.abs(noise) < 1).mean() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)


# --- batches ---


def test_prompts_are_numbered_and_cut_into_batches():
    prompts = numbered(["a", "b", "c"], 7)
    assert [(prompt.index, prompt.caption, prompt.seed) for prompt in prompts] == [
        (0, "a", 7),
        (1, "b", 8),
        (2, "c", 9),
    ]
    assert [len(batch) for batch in batches(prompts, 2)] == [2, 1]
    assert [prompt for batch in batches(prompts, 2) for prompt in batch] == prompts
    assert batches(prompts, 5) == [prompts]


CONFIG = DiTConfig(
    width=32, ffn_width=48, num_heads=2, num_layers=2, max_size=(4, 6, 6), text_widths=(6, 5, 4), frequency_width=16
)


def embed(captions):
    """Embeddings that follow from a caption's text; of the empty one too."""
    rngs = [np.random.default_rng([len(caption), *caption.encode()]) for caption in captions]
    arrays = [
        np.stack([rng.standard_normal((length, width), np.float32) for rng in rngs])
        for length, width in zip((3, 2, 5), CONFIG.text_widths, strict=True)
    ]
    return (*arrays, np.stack([np.arange(10) % 5 <= len(caption) for caption in captions]))


@pytest.fixture(scope="module")
def dit():
    return random_dit(CONFIG)


@pytest.mark.parametrize(("guidance", "text"), [(1.0, "a"), (0.0, "")])
def test_one_velocity_alone_is_that_of_guidance_between_the_two(dit, guidance, text):
    """Just beside 1 and 0 both velocities are computed."""
    prompts, times = numbered(["a"], 3), schedule.linear(3)
    alone = Sampler(dit, embed, guidance, (16, 32, 48))(prompts, times)
    beside = Sampler(dit, embed, guidance + 1e-6, (16, 32, 48))(prompts, times)
    np.testing.assert_allclose(alone, beside, atol=1e-4)
    asked = []
    Sampler(dit, lambda texts: asked.append(texts) or embed(texts), guidance, (16, 32, 48)).velocity(prompts)
    assert asked == [[text]]


def test_a_gate_after_the_last_step_changes_nothing_and_an_earlier_one_little(dit):
    prompts, times = numbered(["a"], 3), schedule.linear(8)
    whole, late, gated, off = (
        Sampler(dit, embed, guidance, (16, 32, 48), gate)(prompts, times)
        for guidance, gate in ((3.0, 1.0), (3.0, 0.99), (3.0, 0.5), (1.0, 1.0))
    )
    assert np.array_equal(late, whole)
    assert 0 < np.abs(gated - whole).max() < 0.5 * np.abs(off - whole).max()


def test_weights_of_the_arithmetics_type_give_what_their_casts_give(dit, tmp_path):
    save_dit(tmp_path / "dit.safetensors", dit)
    held, cast = load_dit(tmp_path / "dit.safetensors", CONFIG, ms.float16), DiT(CONFIG, dtype=ms.float16)
    load_weights(cast, tmp_path / "dit.safetensors")
    found = [Sampler(one, embed, 3.0, (1, 32, 48))(numbered(["a"], 1), schedule.linear(2)) for one in (held, cast)]
    assert np.array_equal(*found)
    matrices = plan.matrix_count(CONFIG) - CONFIG.width * (CONFIG.frequency_width + CONFIG.width)  # but the time-step's
    sizes = [sum(parameter.nbytes for parameter in one.get_parameters()) for one in (held, cast)]
    assert sizes[1] - sizes[0] == 2 * matrices


@pytest.mark.parametrize("size", [(1, 32, 32), (16, 32, 48), (9, 48, 16), (32, 16, 96)])
def test_images_and_videos_of_any_size(dit, size):
    sampler = Sampler(dit, embed, 2.0, size)
    latent = sampler(numbered(["a"], 3), schedule.linear(2))
    assert latent.shape == (1, 16, -(-size[0] // 8), size[1] // 8, size[2] // 8)
    assert np.isfinite(latent).all()
    assert np.abs(latent - noise_for(3, latent.shape[1:])).max() > 0.1  # the network moved it


def test_a_clip_is_the_same_alone_and_in_any_company(dit):
    sampler = Sampler(dit, embed, 3.0, (16, 32, 48))
    times = schedule.linear_quadratic(6)
    one, two, three = numbered(["a cat", "two dogs", ""], 42)
    alone = {prompt: sampler([prompt], times)[0] for prompt in (one, two, three)}
    for batch in ([one, two, three], [three, one, one]):
        for prompt, latent in zip(batch, sampler(batch, times), strict=True):
            np.testing.assert_allclose(latent, alone[prompt], atol=2e-5)
    assert np.array_equal(sampler([one], times)[0], alone[one])  # to the last bit: after other clips, of a batch of one
    other_text = sampler([Prompt(0, "two dogs", 42)], times)[0]
    other_seed = sampler([Prompt(0, "a cat", 43)], times)[0]
    assert min(np.abs(other - alone[one]).max() for other in (other_text, other_seed)) > 0.01


# --- arithmetic and device ---


def test_arithmetic_is_the_recipes_and_latents_are_float32(tmp_path):
    params = {dtype: config.load("smoke", {"stages.3.train.settings.dtype": dtype}) for dtype in ("auto", "float16")}
    save_dit(tmp_path / "dit.safetensors", random_dit(params["auto"].dit_config(3)))
    widths = params["auto"].text.widths
    text = [np.random.default_rng(0).standard_normal((2, 3, width), np.float32) for width in widths]
    keep, found = np.arange(18).reshape(2, 9) % 3 < 2, {}
    for dtype, own in params.items():
        dit = load_stage(tmp_path / "dit.safetensors", own, 3)
        sampler = Sampler(dit, lambda captions: (*text, keep), 2.0, (1, 32, 48))
        found[dtype] = sampler(numbered(["a"], 0), schedule.linear(2))
        types = {name: parameter.dtype for name, parameter in dit.parameters_and_names()}
        assert types["layers.0.mlp.up_proj.weight"] == {"auto": ms.float32, "float16": ms.float16}[dtype]
        assert types["timestep_embedder.mlp.0.weight"] == ms.float32  # computed in float32 whatever the arithmetic
        assert found[dtype].dtype == np.float32
    error = np.abs(found["float16"] - found["auto"]).max()
    assert 1e-5 < error < 0.02 * np.abs(found["auto"]).max()  # float16 holds 11 bits
