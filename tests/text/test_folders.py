"""Encoders in Hugging Face folders: every way they are stored, and everything that can be wrong with one."""

import hashlib
import json
import struct

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moviegen import config, device
from moviegen.config import ConfigError, TextEncoder
from moviegen.runs.arrays import CheckpointError
from moviegen.text.encoders import Pretrained, encoders
from moviegen.text.folders import folder_hash
from tests.text import numpy_models
from tests.text.making import BYT5, CLIP, T5, clip_arrays, t5_arrays, write_bert, write_byt5, write_metaclip, write_ul2

WRITERS = {"ul2": write_ul2, "metaclip": write_metaclip, "byt5": write_byt5}
ARRAYS = {"ul2": t5_arrays(T5), "metaclip": clip_arrays(CLIP), "byt5": t5_arrays(BYT5)}


def assert_weights(name, setting, arrays=None):
    """The network holds these arrays; positions may be stretched."""
    network, wanted = Pretrained(name, setting).load(), arrays or ARRAYS[name]
    found = {key: parameter.asnumpy() for key, parameter in network.parameters_and_names()}
    assert set(found) == set(wanted)
    for key in wanted:
        if "position" not in key:
            assert np.array_equal(found[key], wanted[key]), key


def resave(folder, change):
    """Changes the tensors of `model.safetensors`."""
    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in change(load_file(path)).items()}, path)


# --- what is read ---


@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize("name", WRITERS)
def test_whole_and_sharded_files(tmp_path, name, shards):
    setting = WRITERS[name](tmp_path, shards=shards)
    assert len(list(tmp_path.glob("*.safetensors"))) == shards
    assert_weights(name, setting)


def test_captions_through_a_folder(tmp_path):
    """From a caption to its embeddings: the tokens of the file, the weights of the file, zeros past the end."""
    encoder = Pretrained("ul2", write_ul2(tmp_path))
    captions = ["a red dog", "", *(["car"] * 9)]  # more than a batch
    found = list(encoder.encode(captions))
    assert len(found) == 11
    for ids, one in (([4, 5, 9, 1], found[0]), ([1], found[1]), ([6, 1], found[10])):
        assert one.tokens.tolist() == ids + [0] * (8 - len(ids))
        assert one.mask.tolist() == [True] * len(ids) + [False] * (8 - len(ids))
        wanted = numpy_models.t5_encoder(ARRAYS["ul2"], T5, ids)
        np.testing.assert_allclose(one.text_emb[: len(ids)], wanted, atol=1e-4)
        assert not one.text_emb[len(ids) :].any()
        assert (one.text_emb.dtype, one.mask.dtype, one.tokens.dtype) == (np.float32, bool, np.int64)


def test_each_encoder_has_its_family(tmp_path):
    metaclip = Pretrained("metaclip", write_metaclip(tmp_path / "metaclip"))
    (one,) = metaclip.encode(["a dog"])
    positions = dict(metaclip.load().parameters_and_names())["embeddings.position_embedding.weight"].asnumpy()
    arrays = ARRAYS["metaclip"] | {"embeddings.position_embedding.weight": positions}
    np.testing.assert_allclose(one.text_emb[:4], numpy_models.clip_tower(arrays, CLIP, [3, 4, 9, 1]), atol=1e-4)
    (one,) = Pretrained("byt5", write_byt5(tmp_path / "byt5")).encode(["dö"])
    ids = [byte + 3 for byte in b"d\xc3\xb6"] + [1]
    np.testing.assert_allclose(one.text_emb[:4], numpy_models.t5_encoder(ARRAYS["byt5"], BYT5, ids), atol=1e-4)


def test_tied_table_under_either_name_or_both(tmp_path):
    setting = write_ul2(tmp_path)
    table = ARRAYS["ul2"]["shared.weight"]
    resave(tmp_path, lambda arrays: arrays | {"encoder.embed_tokens.weight": table})
    assert_weights("ul2", setting)
    resave(tmp_path, lambda arrays: {name: array for name, array in arrays.items() if name != "shared.weight"})
    assert_weights("ul2", setting)


def test_decoder_of_a_whole_t5_is_left_alone(tmp_path):
    setting = write_ul2(tmp_path)
    others = {"lm_head.weight": np.ones((24, 16), np.float32), "decoder.block.0.layer.0.x": np.ones(3, np.float32)}
    resave(tmp_path, lambda arrays: arrays | others)
    assert_weights("ul2", setting)


def test_text_tower_of_a_whole_clip(tmp_path):
    setting = write_metaclip(tmp_path)
    others = {"vision_model.encoder.x": np.ones(2), "visual_projection.weight": np.ones(2), "logit_scale": np.ones(1)}
    others |= {"text_projection.weight": np.ones(2), "text_model.embeddings.position_ids": np.arange(7)}
    resave(tmp_path, lambda arrays: {f"text_model.{name}": array for name, array in arrays.items()} | others)
    whole = {"model_type": "clip", "text_config": CLIP, "vision_config": {"hidden_size": 999}}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert_weights("metaclip", setting)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    setting = write_ul2(tmp_path)
    resave(tmp_path, lambda arrays: {name: array.astype(dtype) for name, array in arrays.items()})
    assert_weights("ul2", setting, {name: array.astype(dtype) for name, array in ARRAYS["ul2"].items()})


def test_bfloat16_becomes_float32(tmp_path):
    setting, arrays = write_ul2(tmp_path), ARRAYS["ul2"]
    halves = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in arrays.items()}
    header, data = {}, b""
    for name, half in halves.items():
        spot = [len(data), len(data) + half.nbytes]
        header[name] = {"dtype": "BF16", "shape": list(half.shape), "data_offsets": spot}
        data += half.tobytes()
    written = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + data)
    wanted = {name: (half.astype(np.uint32) << 16).view(np.float32) for name, half in halves.items()}
    assert_weights("ul2", setting, wanted)


# --- what is refused ---


def test_missing_unexpected_and_misshapen_tensors_are_listed(tmp_path):
    setting = write_ul2(tmp_path)

    def spoil(arrays):
        arrays.pop("encoder.block.1.layer.0.SelfAttention.k.weight")
        arrays["encoder.final_layer_norm.weight"] = np.ones(5, np.float32)
        return arrays | {"encoder.block.2.layer.0.layer_norm.weight": np.ones(16, np.float32)}

    resave(tmp_path, spoil)
    with pytest.raises(CheckpointError) as raised:
        Pretrained("ul2", setting).load()
    for part in (
        str(tmp_path),
        "1 missing: encoder.block.1.layer.0.SelfAttention.k.weight",
        "1 unexpected: encoder.block.2.layer.0.layer_norm.weight",
        "encoder.final_layer_norm.weight: (5,) for (16,)",
    ):
        assert part in str(raised.value)


def test_a_table_under_its_decoders_name_alone(tmp_path):
    setting = write_ul2(tmp_path)
    other = "decoder.embed_tokens.weight"
    resave(tmp_path, lambda arrays: {name.replace("shared.weight", other): array for name, array in arrays.items()})
    assert_weights("ul2", setting)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
def test_a_network_saved_in_its_wrapper(tmp_path, wrapper):
    setting = write_metaclip(tmp_path)
    resave(tmp_path, lambda arrays: {f"{wrapper}text_model.{name}": array for name, array in arrays.items()})
    assert_weights("metaclip", setting)


def test_an_index_of_other_shards(tmp_path):
    setting = write_ul2(tmp_path, shards=2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first, second = sorted(set(index["weight_map"].values()))
    name = "encoder.final_layer_norm.weight"
    index["weight_map"][name] = second if index["weight_map"][name] == first else first
    path.write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=rf"index.json lists tensors that are not there: {name} in model-.* \(1 of"
    ):
        Pretrained("ul2", setting).load()


@pytest.mark.parametrize("weight_map", [[], 3, {"a": 1}, {"a": None}, {"a": "../model.safetensors"}, {"a": "x" * 300}])
def test_an_index_that_is_none(tmp_path, weight_map):
    setting = write_ul2(tmp_path, shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConfigError, match=r"index.json(: weight_map is not| lists files)"):
        Pretrained("ul2", setting)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("ul2", {"num_layers": 10**9}, r"2 missing: encoder.block.999999999.layer"),
        ("ul2", {"d_ff": 10**9}, r"DenseReluDense.wo.weight: \(16, 40\) for \(16, 1000000000\)"),
        ("ul2", {"vocab_size": 10**9}, r"shared.weight: \(24, 16\) for \(1000000000, 16\)"),
        ("ul2", {"d_kv": 10**9}, r"SelfAttention.q.weight: \(18, 16\)"),
        ("ul2", {"relative_attention_num_buckets": 10**9}, r"relative_attention_bias.weight: \(32, 3\)"),
        ("metaclip", {"num_hidden_layers": 10**9}, r"missing: encoder.layers.999999999"),
        ("metaclip", {"intermediate_size": 10**9}, r"mlp.fc1.weight: \(40, 16\)"),
        ("metaclip", {"vocab_size": 10**9}, r"token_embedding.weight: \(24, 16\)"),
    ],
)
def test_sizes_of_another_network_are_refused_before_it_is_built(tmp_path, name, changes, says):
    setting = {"ul2": write_ul2, "metaclip": write_metaclip}[name](tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=says):
        Pretrained(name, setting).load()


def test_heads_that_do_not_divide_the_width(tmp_path):
    setting = write_metaclip(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CLIP | {"num_attention_heads": 3}))
    with pytest.raises(ConfigError, match=r"hidden_size 16 is not divisible by num_attention_heads"):
        Pretrained("metaclip", setting)


def test_a_quantised_model(tmp_path):
    setting = write_ul2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(T5 | {"quantization_config": {"load_in_8bit": True}}))
    with pytest.raises(ConfigError, match=r"config.json is of a quantised model"):
        Pretrained("ul2", setting)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        ("<!doctype html>", "a web page"),
        ("", "empty"),
    ],
)
def test_what_is_in_the_place_of_a_file(tmp_path, file, content, says):
    setting = write_ul2(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=rf"{file}.* is {says}"):
        Pretrained("ul2", setting).load()


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.safetensors.incomplete", "has not finished"), ("model.gguf", "quantised"), ("tf_model.h5", "TensorFlow")],
)
def test_what_lies_in_a_folder_without_weights(tmp_path, name, says):
    setting = write_ul2(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"neither model.safetensors nor .*: {name} .*{says}"):
        Pretrained("ul2", setting)


def test_a_folder_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    setting = write_ul2(tmp_path / "models").model_copy(update={"folder": "~/models"})
    assert Pretrained("ul2", setting).folder == tmp_path / "models"


def test_missing_shard(tmp_path):
    setting = write_ul2(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"index.json lists files that are not there: model-00002-of-00003"):
        Pretrained("ul2", setting)


def test_pickles_alone(tmp_path):
    setting = write_ul2(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"neither model.safetensors nor .*: pytorch_model.bin can run code"):
        Pretrained("ul2", setting)


def test_damaged_weights(tmp_path):
    setting = write_ul2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors"):
        Pretrained("ul2", setting).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no config.json"),
        ("{", "config.json is not JSON"),
        ("[]", "holds no JSON object"),
        (json.dumps(CLIP), "model_type 'clip_text_model' is not one of t5"),
        (
            json.dumps({name: value for name, value in T5.items() if name != "d_kv"}),
            "config.json: d_kv: Field required",
        ),
        (json.dumps(T5 | {"feed_forward_proj": "gated-swish"}), "feed_forward_proj: Input should be 'relu'"),
        (json.dumps(T5 | {"num_heads": 0}), "num_heads: Input should be greater than 0"),
    ],
)
def test_config_that_cannot_be_used(tmp_path, content, message):
    setting = write_ul2(tmp_path)
    (tmp_path / "config.json").unlink() if content is None else (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Pretrained("ul2", setting)


def test_another_width_names_both(tmp_path):
    setting = write_ul2(tmp_path).model_copy(update={"width": 64})
    with pytest.raises(ConfigError, match=rf"text.ul2.width is 64, and the encoder in {tmp_path} is 16 wide"):
        Pretrained("ul2", setting)


@pytest.mark.parametrize(("name", "published"), [("ul2", "google/ul2"), ("byt5", "google/byt5-small")])
def test_missing_folder_says_what_to_fetch_and_where_it_goes(tmp_path, name, published):
    folder = tmp_path / "models" / name
    with pytest.raises(ConfigError) as raised:
        Pretrained(name, TextEncoder(width=8, max_tokens=8, folder=str(folder)))
    for part in (
        f"text.{name}.folder",
        str(folder),
        published,
        "config.json",
        "tokenizer.json",
        "safetensors",
        "README",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("scale", ["1B", "5B", "30B"])
def test_real_recipes_name_real_encoders(scale):
    text = config.load(scale).text
    folders = (text.ul2.folder, text.metaclip.folder, text.byt5.folder)
    assert folders == ("models/ul2", "models/metaclip", "models/byt5-small")
    with pytest.raises(ConfigError, match=f"text.ul2.folder: there is no folder {config.from_root('models/ul2')}"):
        encoders(config.load(scale))


# --- whose they are ---


def test_hash_covers_each_file_that_matters(tmp_path):
    setting = write_ul2(tmp_path, shards=2)
    before = Pretrained("ul2", setting).sha256()
    files = sorted([*tmp_path.glob("*.safetensors"), tmp_path / "config.json", tmp_path / "tokenizer.json"])
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files]
    assert before == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "README.md").write_text("notes")
    assert Pretrained("ul2", setting).sha256() == before
    for path in files:
        kept = path.read_bytes()
        path.write_bytes(kept + b" ")
        assert folder_hash(tmp_path, ["config.json", "tokenizer.json"]) != before
        path.write_bytes(kept)


def test_byt5_needs_no_tokenizer(tmp_path):
    setting = write_byt5(tmp_path)
    before = Pretrained("byt5", setting).sha256()
    (tmp_path / "tokenizer.json").write_text("not looked at")
    assert Pretrained("byt5", setting).sha256() == before


@pytest.mark.parametrize(("name", "write"), [("ul2", write_ul2), ("ul2", write_bert), ("metaclip", write_metaclip)])
def test_weights_are_held_in_the_type_of_the_devices_arithmetic(name, write, tmp_path, monkeypatch):
    """Half of float32's bytes, and of its embeddings all but what rounding to 11 bits changes."""
    encoder = Pretrained(name, write(tmp_path))
    captions = ["a fox runs", "two dogs"]
    whole = [one.text_emb for one in encoder.encode(captions)]
    size = sum(parameter.nbytes for parameter in encoder.load().get_parameters())
    monkeypatch.setattr(device, "compute_dtype", lambda: ms.float16)
    network = encoder.load()
    assert {parameter.dtype for parameter in network.get_parameters()} == {ms.float16}
    assert 2 * sum(parameter.nbytes for parameter in network.get_parameters()) == size
    for half, full in zip(encoder.encode(captions), whole, strict=True):
        assert half.text_emb.dtype == np.float32
        assert 0 < np.abs(half.text_emb - full).max() < 0.02 * np.abs(full).max()
