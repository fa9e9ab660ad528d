"""CLIP's text tower against NumPy: activations, what a token sees, stretched positions."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.runs.weights import assign
from moviegen.text import clip
from moviegen.text.clip import ClipConfig, ClipTextTower, stretch
from tests.text import numpy_models
from tests.text.making import CLIP, clip_arrays


@pytest.fixture(scope="module")
def encode():
    """Runs tokens through the tower of a config at random weights, its positions stretched to their length."""

    def call(config, tokens):
        length = tokens.shape[1]
        settings = ClipConfig.model_validate(config)
        network = ClipTextTower(settings, length)
        arrays = clip.weights(clip_arrays(config), settings, length)
        assign(dict(network.parameters_and_names()), arrays, "the test")
        return network(ms.Tensor(tokens.astype(np.int32)), ms.Tensor(np.ones_like(tokens, bool))).asnumpy()

    return call


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_forward(encode, activation):
    config = CLIP | {"hidden_act": activation}
    tokens = np.random.default_rng(1).integers(0, 24, (3, 7))
    found = encode(config, tokens)
    assert found.dtype == np.float32
    for row, ids in zip(found, tokens, strict=True):
        wanted = numpy_models.clip_tower(clip_arrays(config), config, ids)
        np.testing.assert_allclose(row, wanted, atol=2e-5 * np.abs(wanted).max())


def test_activations_differ_in_this_test():
    one, other = (
        numpy_models.clip_tower(clip_arrays(CLIP), CLIP | {"hidden_act": name}, (3, 1, 4)) for name in clip.ACTIVATIONS
    )
    assert np.abs(one - other).max() > 1e-3


def test_forward_past_the_tables_end(encode):
    tokens = np.random.default_rng(2).integers(0, 24, (2, 20))
    arrays = clip_arrays(CLIP)
    table = arrays["embeddings.position_embedding.weight"]
    places = np.arange(20) * 6 / 19
    rows = [table[int(p)] * (1 - p % 1) + table[min(int(p) + 1, 6)] * (p % 1) for p in places]
    arrays["embeddings.position_embedding.weight"] = np.array(rows)
    for row, ids in zip(encode(CLIP, tokens), tokens, strict=True):
        wanted = numpy_models.clip_tower(arrays, CLIP, ids)
        np.testing.assert_allclose(row, wanted, atol=2e-5 * np.abs(wanted).max())


def test_what_follows_a_token_changes_nothing_of_it(encode):
    tokens = np.random.default_rng(3).integers(0, 24, (2, 7))
    tokens[1, :4] = tokens[0, :4]
    one, other = encode(CLIP, tokens)
    np.testing.assert_allclose(one[:4], other[:4], atol=1e-6)
    assert np.abs(one[4:] - other[4:]).max() > 0.1


def test_positions_are_stretched_along_straight_lines():
    table = np.float32([[0, 5], [10, 5], [20, -5]])
    assert stretch(table, 5).tolist() == [[0, 5], [5, 5], [10, 5], [15, 0], [20, -5]]
    assert stretch(table, 5).dtype == np.float32


def test_77_positions_become_256():
    table = np.random.default_rng(4).standard_normal((77, 3)).astype(np.float32)
    long = stretch(table, 256)
    assert long.shape == (256, 3)
    assert np.array_equal(long[[0, -1]], table[[0, -1]])
    for channel in range(3):
        wanted = np.interp(np.arange(256) * 76 / 255, np.arange(77), table[:, channel])
        np.testing.assert_allclose(long[:, channel], wanted, atol=1e-6)


@pytest.mark.parametrize("length", [1, 5, 7])
def test_fewer_positions_are_the_first_ones(length):
    table = np.random.default_rng(5).standard_normal((7, 3)).astype(np.float32)
    assert np.array_equal(stretch(table, length), table[:length])


def test_parameters_have_hugging_faces_names():
    network = ClipTextTower(ClipConfig.model_validate(CLIP), 7)
    assert {name for name, _ in network.parameters_and_names()} == set(clip_arrays(CLIP))
