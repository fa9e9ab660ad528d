"""BERT's encoder against NumPy: activations, padding, places; and a folder of it in UL2's place."""

import json

import mindspore as ms
import numpy as np
import pytest

from moviegen.config import ConfigError
from moviegen.runs.weights import assign
from moviegen.text import bert
from moviegen.text.bert import BertConfig, BertEncoder
from moviegen.text.encoders import Pretrained, origin
from tests.text import numpy_models
from tests.text.making import BERT, bert_arrays, write_bert

ARRAYS = bert_arrays(BERT)


@pytest.fixture(scope="module")
def encode():
    """Runs tokens through the encoder of a config at random weights."""

    def call(config, tokens, keep=None):
        settings, length = BertConfig.model_validate(config), tokens.shape[1]
        network = BertEncoder(settings, length)
        assign(dict(network.parameters_and_names()), bert.weights(ARRAYS, settings, length), "the test")
        keep = np.ones_like(tokens, bool) if keep is None else keep
        return network(ms.Tensor(tokens.astype(np.int32)), ms.Tensor(keep)).asnumpy()

    return call


def check(found, ids, config=BERT):
    wanted = numpy_models.bert_encoder(ARRAYS, config, ids)
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("activation", sorted(bert.ACTIVATIONS))
def test_forward(encode, activation):
    config = BERT | {"hidden_act": activation}
    tokens = np.random.default_rng(1).integers(0, 24, (3, 7))
    found = encode(config, tokens)
    assert found.dtype == np.float32
    for row, ids in zip(found, tokens, strict=True):
        check(row, ids, config)


def test_activations_differ_in_this_test():
    one, *others = (
        numpy_models.bert_encoder(ARRAYS, BERT | {"hidden_act": name}, (3, 1, 4))
        for name in ("gelu", "gelu_new", "relu")
    )
    assert all(np.abs(one - other).max() > 1e-5 for other in others)


def test_padding_is_seen_by_no_other_token(encode):
    tokens = np.random.default_rng(2).integers(0, 24, (2, 9))
    keep = np.arange(9) < np.array([[4], [9]])
    one, other = encode(BERT, tokens, keep)
    check(one[:4], tokens[0, :4])
    check(other, tokens[1])


def test_every_token_sees_those_after_it(encode):
    tokens = np.random.default_rng(3).integers(0, 24, (2, 6))
    tokens[1, :5], tokens[:, 5] = tokens[0, :5], (7, 8)
    one, other = encode(BERT, tokens)
    assert np.abs(one[:5] - other[:5]).min(1).max() > 1e-4


def test_parameters_have_hugging_faces_names():
    network = BertEncoder(BertConfig.model_validate(BERT), 12)
    assert {name for name, _ in network.parameters_and_names()} == set(ARRAYS)


def test_more_tokens_than_places_are_refused():
    with pytest.raises(ConfigError, match="knows 12 positions, and max_tokens is 13: lower it"):
        bert.weights(ARRAYS, BertConfig.model_validate(BERT), 13)


def old_names(name):
    return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("name_of", [str, "bert.{}".format, old_names])
def test_a_folder_in_ul2s_place(tmp_path, name_of):
    """Alone, within a model with a head, and under the names of files that come from TensorFlow."""
    beside = {"pooler.dense.weight": (16, 16), "embeddings.position_ids": (1, 12)}
    arrays = {name_of(name): array for name, array in ARRAYS.items()}
    arrays |= {name_of(name): np.zeros(shape, np.float32) for name, shape in beside.items()}
    encoder = Pretrained("ul2", write_bert(tmp_path, arrays | {"cls.predictions.bias": np.zeros(24, np.float32)}))
    assert origin(encoder)["kind"] == encoder.kind == "bert" and "(bert)" in str(encoder)
    (one,) = encoder.encode(["a red car"])
    assert one.tokens[one.mask].tolist() == [3, 4, 5, 6, 1]
    check(one.text_emb[:5], [3, 4, 5, 6, 1])
    assert not one.text_emb[5:].any()


@pytest.mark.parametrize("place", ["metaclip", "byt5"])
def test_it_stands_in_no_other_place(tmp_path, place):
    with pytest.raises(ConfigError, match="model_type 'bert' is not one of"):
        Pretrained(place, write_bert(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_attention_heads", 3, "hidden_size 16 is not divisible by num_attention_heads 3"),
        ("hidden_act", "swish", "hidden_act: Input should be"),
        ("position_embedding_type", "relative_key", "position_embedding_type: Input should be 'absolute'"),
        ("model_type", "roberta", "model_type 'roberta' is not one of t5, bert"),
        ("model_type", ["bert"], "is not one of t5, bert"),
    ],
)
def test_what_is_another_network_is_refused(tmp_path, key, value, words):
    setting = write_bert(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(BERT | {key: value}))
    with pytest.raises(ConfigError, match=words):
        Pretrained("ul2", setting)
