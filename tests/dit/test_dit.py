import math
import platform
import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen import plan
from moviegen.dit.inference import load_dit
from moviegen.dit.layers import TimestepEmbedder
from moviegen.dit.model import DiT
from moviegen.dit.patches import patchify, unpatchify
from moviegen.dit.positions import grow_table
from moviegen.dit.weights import load_weights, save_dit
from moviegen.runs.arrays import CheckpointError
from moviegen.runs.weights import assign, to_arrays
from tests.golden import CASES, SETS, SMALL, difference, weights

# The time-step's frequencies are NumPy's exp of float32, whose last bits are others on other processors.
ROUNDING = 2e-6 if platform.machine() == "x86_64" else 2e-5
RNG = np.random.default_rng(0)


def randomize(dit):
    for name, parameter in dit.parameters_and_names():
        if name.endswith("proj.weight"):  # the output projection starts at zero
            parameter.set_data(ms.Tensor(RNG.standard_normal(parameter.shape) * 0.3, ms.float32))
    return dit


@pytest.fixture(scope="module")
def dit(small):
    return randomize(DiT(small))


def inputs(config, frames=1, height=4, width=6):
    text = [RNG.standard_normal((2, length, w)) for length, w in zip((3, 2, 2), config.text_widths, strict=True)]
    latent = RNG.standard_normal((2, config.latent_channels, frames, height, width))
    return [ms.Tensor(array, ms.float32) for array in (latent, np.array([10.0, 900.0]), *text)]


def test_an_encoder_that_is_left_out_has_no_weights(small, dit):
    alone = randomize(DiT(small.model_copy(update={"text_widths": (6, 0, 0)})))
    texts = {"ul2", "metaclip", "byt5"}
    names = {name for name, _ in alone.parameters_and_names()}
    others = {name for name, _ in dit.parameters_and_names()}
    assert {text for text in texts for name in names if text in name} == {"ul2"}
    assert names == {name for name in others if "metaclip" not in name and "byt5" not in name}
    sizes = {name: parameter.size for name, parameter in alone.parameters_and_names()}
    assert plan.parameter_count(alone.config) == sum(
        size for name, size in sizes.items() if "pos_embedding_table" not in name
    )
    # D = 16: a projection and the weights of a norm each
    assert plan.parameter_count(small) - plan.parameter_count(alone.config) == (5 + 4) * 16 + 2 * 16


@pytest.mark.parametrize("widths", [(6, 0, 0), (0, 5, 4)])
def test_encoders_that_are_there_give_all_tokens(small, widths):
    """The same as with all three whose other tokens are masked: what is left out is as what is not seen."""
    ms.set_seed(0)
    whole = randomize(DiT(small))
    part = DiT(small.model_copy(update={"text_widths": widths}))
    arrays = to_arrays(dict(whole.parameters_and_names()))
    own = dict(part.parameters_and_names())
    assign(own, {name: arrays[name] for name in own}, "those that are there")
    latent, times, *text = inputs(small)
    lengths = [embedding.shape[1] for embedding in text]
    is_there = np.repeat([bool(width) for width in widths], lengths)
    seen = whole(latent, times, *text, ms.Tensor(np.tile(is_there, (2, 1))))
    given = [embedding for embedding, width in zip(text, widths, strict=True) if width]
    masked = part(latent, times, *given, ms.Tensor(np.ones((2, int(is_there.sum())), bool)))
    np.testing.assert_allclose(part(latent, times, *given).asnumpy(), seen.asnumpy(), atol=2e-6)
    np.testing.assert_allclose(masked.asnumpy(), seen.asnumpy(), atol=2e-6)


@pytest.fixture(scope="module", params=SETS.values(), ids=SETS)
def golden(request):
    return request.param


def wrapped(golden):
    """The released weights under the names they have inside the training wrapper."""
    return {f"network.model.{name}": array for name, array in weights(golden.read("dit")).items()}


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory):
    """A transformer that took the released weights from MindSpore's `.ckpt`, as they are published."""
    path = tmp_path_factory.mktemp("published") / "published.ckpt"
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in wrapped(golden).items()], str(path))
    dit = DiT(golden.dit)
    load_weights(dit, path)
    return dit


def test_released_weights_are_the_same_from_npz(golden, published, tmp_path):
    np.savez(tmp_path / "published.npz", **wrapped(golden))
    dit = DiT(golden.dit)
    load_weights(dit, tmp_path / "published.npz")
    for (name, found), (_, wanted) in zip(dit.parameters_and_names(), published.parameters_and_names(), strict=True):
        np.testing.assert_array_equal(found.asnumpy(), wanted.asnumpy(), err_msg=name)


@pytest.mark.parametrize(("case", "is_masked"), [*((case, False) for case in CASES), (0, True)])
def test_the_same_numbers_as_the_released_implementation(golden, published, case, is_masked):
    """Masks change nothing of them: the released implementation has none."""
    arrays = golden.read("dit")
    latent, *others = (arrays[f"case{case}/{key}"] for key in ("latent", "timestep", "ul2", "metaclip", "byt5"))
    tokens = sum(text.shape[1] for text in others[1:])
    masks = ms.Tensor(np.arange(2 * tokens).reshape(2, tokens) % 2 == 0) if is_masked else None
    out = published(*map(ms.Tensor, (latent.swapaxes(1, 2), *others)), masks).asnumpy().swapaxes(1, 2)
    assert difference(out, arrays[f"case{case}/output"]) <= ROUNDING


def test_frequencies_of_the_time_step_are_rounded_as_the_released_ones():
    """NumPy's float32 from the first operation on; float64 rounded at the end has other last bits."""
    places = np.arange(128, dtype=np.float32)
    wanted = np.exp(np.float32(-math.log(10000)) * places / np.float32(128))
    assert wanted.dtype == np.float32
    np.testing.assert_array_equal(TimestepEmbedder(SMALL.dit).frequencies.asnumpy(), wanted[None])


def test_untrained_velocity_is_exactly_zero(small):
    assert not DiT(small)(*inputs(small)).asnumpy().any()


KEEP = ms.Tensor(np.array([[1, 1, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 1, 0]], bool))  # UL2's 3, MetaCLIP's 2, ByT5's 2


def changed_padding(given, encoder):
    """The inputs with other numbers in the last token of one encoder, which KEEP masks."""
    text = given[2 + encoder].asnumpy().copy()
    text[:, -1] += 5
    return [*given[: 2 + encoder], ms.Tensor(text), *given[3 + encoder :]]


@pytest.mark.parametrize("encoder", [0, 1, 2], ids=["ul2", "metaclip", "byt5"])
def test_padding_tokens_change_nothing_when_masked(small, dit, encoder):
    given = inputs(small)
    changed = changed_padding(given, encoder)
    np.testing.assert_allclose(dit(*given, KEEP).asnumpy(), dit(*changed, KEEP).asnumpy(), atol=1e-6)
    assert np.abs(dit(*given).asnumpy() - dit(*changed).asnumpy()).max() > 1e-3


def test_masks_are_left_aside_where_padding_is_attended_to(small, dit):
    given = inputs(small)
    attentive = DiT(small.model_copy(update={"attend_to_padding": True}))
    assign(dict(attentive.parameters_and_names()), to_arrays(dict(dit.parameters_and_names())), "the other")
    np.testing.assert_array_equal(attentive(*given, KEEP).asnumpy(), dit(*given).asnumpy())
    assert np.abs(dit(*given, KEEP).asnumpy() - dit(*given).asnumpy()).max() > 1e-3


def velocity_and_gradients(network, given, weigh):
    """The velocity, and the gradients by every parameter of its sum weighed."""

    def total(latent, timestep, ul2, metaclip, byt5, masks):
        velocity = network(latent, timestep, ul2, metaclip, byt5, masks)
        return (velocity * weigh).sum(), velocity

    backward = ops.value_and_grad(total, None, list(network.get_parameters()), has_aux=True)
    (_, velocity), gradients = backward(*given, KEEP)
    return [array.asnumpy() for array in (velocity, *gradients)]


def test_float16_gives_the_velocity_and_the_gradients_of_float32_to_its_rounding(small, dit):
    half = DiT(small, dtype=ms.float16)
    assign(dict(half.parameters_and_names()), to_arrays(dict(dit.parameters_and_names())), "the other")
    given, weigh = inputs(small), ms.Tensor(RNG.standard_normal((2, 4, 1, 4, 6)), ms.float32)
    wide, narrow = (velocity_and_gradients(network, given, weigh) for network in (dit, half))
    for whole, rounded in zip(wide, narrow, strict=True):
        assert rounded.dtype == np.float32
        assert np.linalg.norm(rounded - whole) <= 0.02 * np.linalg.norm(whole)  # float16 holds 11 bits
    assert not np.array_equal(wide[0], narrow[0])


def test_what_blocks_give_is_added_in_float32(small):
    """float16 holds no number between 2048 and 2050: added in it, what these blocks give would be lost."""
    config = small.model_copy(update={"num_layers": 3})
    half, whole = (DiT(config, dtype=dtype) for dtype in (ms.float16, ms.float32))
    assign(dict(half.parameters_and_names()), to_arrays(dict(whole.parameters_and_names())), "the other")
    x, time = 2048 + RNG.standard_normal((2, 6, 16), np.float32), RNG.standard_normal((2, 6, 16), np.float32) / 4
    text = RNG.standard_normal((2, 5, 16), np.float32) / 4

    def added(dit, dtype):
        stream = ms.Tensor(x)
        for layer in dit.layers:
            stream = layer(stream, ms.Tensor(time, dtype), ms.Tensor(text, dtype), None, None)
        assert stream.dtype == ms.float32
        return stream.asnumpy() - x

    expected, found = added(whole, ms.float32), added(half, ms.float16)
    assert np.median(np.abs(expected)) < 1  # most of it is lost where the next number is 2 away
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"frames": 2}, r"\(2, 2, 3\) patches is larger than the position tables \(1, 2, 3\)"),
        ({"height": 6}, r"\(1, 3, 3\) patches is larger than the position tables \(1, 2, 3\)"),
        ({"width": 8}, r"\(1, 2, 4\) patches is larger than the position tables \(1, 2, 3\)"),
        ({"height": 3}, "even"),
        ({"width": 5}, "even"),
    ],
)
def test_latents_beyond_the_tables_or_of_odd_sides_are_refused(small, dit, size, message):
    with pytest.raises(ValueError, match=message):
        dit(*inputs(small, **size))


@pytest.mark.parametrize("encoder", [0, 1, 2], ids=["ul2", "metaclip", "byt5"])
def test_embeddings_of_another_width_are_refused_by_both_shapes(small, dit, encoder):
    given = inputs(small)
    given[2 + encoder] = given[2 + encoder][..., :-1]
    wanted = [(2, length, width) for length, width in zip((3, 2, 2), small.text_widths, strict=True)]
    found = [tuple(text.shape) for text in given[2:]]
    with pytest.raises(ValueError, match=re.escape(f"{found}") + ".*" + re.escape(f"{wanted}")):
        dit(*given)


def test_embeddings_of_another_batch_are_refused(small, dit):
    given = inputs(small)
    given[3] = given[3][:1]
    with pytest.raises(ValueError, match=r"\(1, 2, 5\).*\(2, 2, 5\)"):
        dit(*given)


@pytest.mark.parametrize("shape", [(2, 6), (1, 7)])
def test_masks_of_another_shape_are_refused_by_both_shapes(small, dit, shape):
    message = f"masks of shape {shape}: the embeddings' 7 tokens need (2, 7)"
    with pytest.raises(ValueError, match=re.escape(message)):
        dit(*inputs(small), ms.Tensor(np.ones(shape, bool)))


def test_a_patch_holds_its_own_pixels():
    latent = np.arange(2 * 3 * 2 * 4 * 6, dtype=np.float32).reshape(2, 3, 2, 4, 6)
    tokens = patchify(ms.Tensor(latent), (2, 2, 3)).asnumpy()
    np.testing.assert_array_equal(tokens[1, 1 * 6 + 1 * 3 + 2], latent[1, :, 1, 2:4, 4:6].reshape(-1))
    channels_last = tokens.reshape(2, 12, 3, 4).swapaxes(2, 3).reshape(2, 12, 12)
    np.testing.assert_array_equal(unpatchify(ms.Tensor(channels_last), (2, 2, 3), 3).asnumpy(), latent)


@pytest.mark.parametrize("times", [2, 3])
def test_grown_tables_hold_the_old_rows_at_the_knots(times):
    table = RNG.standard_normal((5, 4)).astype(np.float32)
    grown = grow_table(table, 5 * times)
    np.testing.assert_array_equal(grown[::times], table)
    np.testing.assert_allclose(grown[1], table[0] + (table[1] - table[0]) / times, atol=1e-6)
    with pytest.raises(CheckpointError, match="cannot shrink"):
        grow_table(table, 4)


def test_an_image_sees_nothing_of_a_new_temporal_table(small, dit, tmp_path):
    given, grown = inputs(small), DiT(small.model_copy(update={"max_size": (4, 2, 3)}))
    save_dit(tmp_path / "dit.safetensors", dit)
    load_weights(grown, tmp_path / "dit.safetensors", grow=True)
    np.testing.assert_array_equal(grown(*given).asnumpy(), dit(*given).asnumpy())


def test_a_file_brings_its_own_tables_to_a_stage_of_larger_ones(small, dit, tmp_path):
    given = inputs(small)
    save_dit(tmp_path / "dit.safetensors", dit)
    loaded = load_dit(tmp_path / "dit.safetensors", small.model_copy(update={"max_size": (4, 6, 9)}))
    np.testing.assert_array_equal(loaded(*given).asnumpy(), dit(*given).asnumpy())
    assert loaded.config == small


def test_weights_of_another_size_are_refused_by_name(small, tmp_path):
    save_dit(tmp_path / "dit.safetensors", DiT(small))
    with pytest.raises(CheckpointError, match=r"layers.1.*missing|missing.*layers.1"):
        load_dit(tmp_path / "dit.safetensors", small.model_copy(update={"num_layers": 2}))
