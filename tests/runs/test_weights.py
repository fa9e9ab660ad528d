"""Files of weights: what is read, and what people have in their place."""

import hashlib
import json
import pickle
import struct
import tracemalloc
import zipfile

import mindspore as ms
import numpy as np
import pytest
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors.numpy import save_file

from moviegen.runs.arrays import (
    CheckpointError,
    check_fits,
    npz_headers,
    read_npz,
    save_arrays,
    stored_tensors,
    unwrapped,
    write_tensors,
)
from moviegen.runs.weights import assign, load_arrays

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 335304388\n"


def write_safetensors(path, header, data=b"", length=None):
    """By the format's definition: the header's length, the header, the bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(kind, shape, start, stop):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def network(**shapes):
    return {name: ms.Parameter(ms.Tensor(np.zeros(shape, np.float32))) for name, shape in shapes.items()}


# --- types ---


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("F64", np.float64), ("F32", np.float32), ("F16", np.float16), ("BF16", None)],
)
def test_floats_of_every_width_are_read(kind, stored, tmp_path):
    values = np.array([0.0, 1.0, -2.5, 384.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    data = halves.tobytes() if stored is None else values.astype(stored).tobytes()
    path = write_safetensors(tmp_path / "a.safetensors", {"a": tensor(kind, [2, 2], 0, len(data))}, data)
    for found in (np.asarray(stored_tensors(path)["a"]), load_arrays(path)[0]["a"]):
        np.testing.assert_array_equal(found.ravel(), values)
    filled = network(a=(2, 2))
    assign(filled, stored_tensors(path), "x")
    np.testing.assert_array_equal(filled["a"].asnumpy().ravel(), values)


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("F4", 0.5), ("C64", 8)])
def test_types_that_are_not_read_are_named(kind, size, tmp_path):
    data = bytes(int(8 * size))
    path = write_safetensors(tmp_path / "a.safetensors", {"a.weight": tensor(kind, [8], 0, len(data))}, data)
    for read in (lambda: load_arrays(path), lambda: np.asarray(stored_tensors(path)["a.weight"])):
        with pytest.raises(CheckpointError, match=rf"a.safetensors: a.weight is {kind}: .*not a quantised model's"):
            read()
    with pytest.raises(CheckpointError, match=f"1 of another type: a.weight: {kind}. Weights are read as"):
        assign(network(**{"a.weight": (8,)}), stored_tensors(path), "x")


def test_integers_are_no_weights(tmp_path):
    save_arrays(tmp_path / "a.safetensors", {"a": np.ones(4, np.int8)})
    for arrays in (stored_tensors(tmp_path / "a.safetensors"), load_arrays(tmp_path / "a.safetensors")[0]):
        with pytest.raises(CheckpointError, match=r"1 of another type: a: (I8|int8)"):
            check_fits({"a": (4,)}, arrays, "x")


@pytest.mark.parametrize("extra", ["a.SCB", "a.absmax", "a.qweight", "a.weight_scale", "scaled_fp8"])
def test_what_quantised_models_hold_besides_is_known(extra):
    arrays = {"a": np.ones(4, np.float32), extra: np.ones(4, np.float32)}
    with pytest.raises(CheckpointError, match=f"1 unexpected: {extra}.*not a quantised model's"):
        check_fits({"a": (4,)}, arrays, "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(bad):
    arrays = {"a": np.full(4, 3e38, np.float32), "b": np.array([1, bad, -bad, 0], np.float32)}
    with pytest.raises(CheckpointError, match=r"file.x: b holds NaN or infinity"):
        assign(network(a=(4,), b=(4,)), arrays, "file.x")
    assign(network(a=(4,)), {"a": arrays["a"]}, "file.x")  # large ones are none


# --- names ---


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "network.", "module._orig_mod.", "network.model."])
def test_the_name_of_a_wrapper_is_left_out(wrapper):
    names = {"encoder.a": 1, "decoder.module.b": 2, "model": 3}
    assert unwrapped({wrapper + name: value for name, value in names.items()}) == names
    assert unwrapped({"encoder._orig_mod.a": 1, "decoder.b": 2}) == {"encoder.a": 1, "decoder.b": 2}


def test_what_only_some_names_have_is_no_wrapper():
    names = {"module.a": 1, "b": 2}
    assert unwrapped(names) == names
    assert unwrapped({}) == {}


# --- something else in the place of a file ---


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "npz"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS, "a Git LFS pointer .*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body>" + b" " * 999, "a web page"),
        (b"\n<HTML>", "a web page"),
        (b'{"error": "Access to model x is restricted"}', "a text, .*Access to model x is restricted"),
        ("Accès refusé".encode(), "a text, 'Accès refusé'"),
        (b"", "empty: fetch it again"),
        (pickle.dumps([1]), "a PyTorch pickle"),
        (b"GGUF\x03\x00\x00\x00" + bytes(99), "a GGUF file of quantised weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(99), "packed with gzip"),
        (bytes(1000), "damaged, or its download stopped|no tensors"),
    ],
)
def test_what_is_in_the_place_of_weights_is_named(suffix, content, says, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"cannot read .*a.{suffix}: .*({says})"):
        load_arrays(path)


def test_a_pickle_of_pytorch_under_the_name_of_others(tmp_path):
    for suffix in ("ckpt", "safetensors"):
        with zipfile.ZipFile(tmp_path / f"a.{suffix}", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with pytest.raises(CheckpointError, match="a zip archive, as PyTorch writes: perhaps a PyTorch pickle"):
            load_arrays(tmp_path / f"a.{suffix}")


def test_folders_links_to_nothing_and_unfinished_downloads(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="it is a folder: name the file inside it"):
        stored_tensors(tmp_path / "a.safetensors")
    (tmp_path / "b.ckpt").symlink_to(tmp_path / "blobs" / "1234")
    with pytest.raises(CheckpointError, match=r"it is a link to .*blobs/1234, which is not there"):
        load_arrays(tmp_path / "b.ckpt")
    (tmp_path / "c.safetensors.incomplete").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"c.safetensors.incomplete is a download that has not finished"):
        load_arrays(tmp_path / "c.safetensors.incomplete")


# --- files that lie about themselves ---


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor("F32", [4], 0, 16), "b": tensor("F32", [4], 8, 24)},
        {"a": tensor("F32", [2**63, 2], 0, 24)},
        {"a": tensor("F32", [-1], 0, 24)},
        {"a": tensor("F32", [4], 0, 16)},
        b"[" * 100_000,
        b"\xff" * 30,
    ],
)
def test_headers_of_safetensors_that_cannot_be(header, tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", header, bytes(24))
    for read in (load_arrays, stored_tensors):
        with pytest.raises(CheckpointError, match=r"cannot read .*a.safetensors"):
            read(path)


def test_a_header_longer_than_any_memory(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", b"{}", length=2**60)
    with pytest.raises(CheckpointError, match="header too large"):
        stored_tensors(path)


def test_no_room_is_made_for_an_empty_tensor_of_endless_rows(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", {"a": tensor("F32", [0, 2**62], 0, 0)})
    with pytest.raises(CheckpointError, match=r"cannot read .*a.safetensors"):
        np.asarray(stored_tensors(path)["a"])


def npy(shape, kind="<f4", data=b""):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "member",
    [
        npy("(1099511627776,)"),
        npy(f"({10**30},)"),
        npy("(-1,)", data=bytes(16)),
        npy("(-2, -2)", data=bytes(16)),
        npy("(2,)", data=bytes(400)),
        npy("(2,)", data=bytes(4)),
        npy("(2,)", "|O", bytes(16)),
        npy("(2,)", "<U4", bytes(32)),
        npy("(2,)", "zz"),
        npy("[" * 5000),
        b"",
        b"\x93NUMPY\x09\x00",
    ],
)
def test_arrays_of_npz_that_cannot_be(member, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    for read in (read_npz, npz_headers):
        with pytest.raises(CheckpointError, match=r"a.npz is damaged .*: make it again"):
            read(path, "a", mend="make it again")
    with pytest.raises(CheckpointError, match=r"cannot read .*a.npz"):
        load_arrays(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    size, piece = 300 * 2**20, bytes(2**20)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        file.write(npy(f"({size // 4},)"))
        for _ in range(size // len(piece)):
            file.write(piece)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"unpack into 3\d+, which no arrays do"):
        load_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_arrays_of_npz_that_can_be(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "empty": np.zeros((0, 4)),
        "one": np.array(3),
        "mask": np.ones(2, bool),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found, _ = load_arrays(tmp_path / "a.npz")
        headers = tuple((array.shape, str(array.dtype)) for array in arrays.values())
        assert npz_headers(tmp_path / "a.npz", *arrays, mend="") == headers
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


# --- MindSpore's own format ---


def write_ckpt(path, *values):
    message = Checkpoint()
    for name, kind, dims, content in values:
        value = message.value.add()
        value.tag, value.tensor.tensor_type, value.tensor.tensor_content = name, kind, content
        value.tensor.dims.extend(dims)
    path.write_bytes(message.SerializeToString())
    return path


FLOATS = np.arange(6, dtype=np.float32).tobytes()


@pytest.mark.parametrize("kind", [ms.float32, ms.float16, ms.bfloat16, ms.float64, ms.int32, ms.bool_])
@pytest.mark.parametrize("crc_check", [False, True])
def test_what_mindspore_saves(kind, crc_check, tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "one": np.array(1.0)}
    saved = [{"name": name, "data": ms.Tensor(array).astype(kind)} for name, array in arrays.items()]
    ms.save_checkpoint(saved, str(tmp_path / "a.ckpt"), crc_check=crc_check)
    found, _ = load_arrays(tmp_path / "a.ckpt")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.astype(bool) if kind == ms.bool_ else array)
        assert found[name].shape == array.shape


def test_parts_of_one_tensor_are_joined_and_notes_left_out(tmp_path):
    parts = [("a", "Float32", [2, 3], FLOATS[:8]), ("a", "Float32", [2, 3], FLOATS[8:])]
    path = write_ckpt(tmp_path / "a.ckpt", ("note", "str", [1], b"h\0\0\0"), *parts, ("b", "Float32", [], FLOATS[4:8]))
    found, _ = load_arrays(path)
    assert found.keys() == {"a", "b"}
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
    assert found["b"] == 1


@pytest.mark.parametrize(
    ("kind", "dims", "says"),
    [
        ("Float32", [2, 300], "holds 6 values"),  # MindSpore's reader fills it with zeros
        ("Float32", [1], "holds 6 values"),  # and drops what is too much
        ("Float32", [2**40, 2**40], "holds 6 values"),
        ("Float32", [-2, -3], "holds 6 values"),
        ("Int4", [6], "a is Int4: .*quantised"),
        ("", [6], "a is no tensor"),
        ("Float64", [6], "holds 3 values"),
    ],
)
def test_tensors_of_ckpt_that_cannot_be(kind, dims, says, tmp_path):
    path = write_ckpt(tmp_path / "a.ckpt", ("a", kind, dims, FLOATS))
    with pytest.raises(CheckpointError, match=rf"cannot read .*a.ckpt: .*{says}"):
        load_arrays(path)


def test_a_checksum_that_does_not_fit(tmp_path):
    path = tmp_path / "a.ckpt"
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor(np.zeros(9, np.float32))}], str(path), crc_check=True)
    path.write_bytes(path.read_bytes().replace(bytes(8), b"\1" * 8, 1))
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_arrays(path)


def test_a_file_is_laid_out_as_the_library_lays_it_out_and_hashed_on_the_way(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "b.weight": rng.random((3, 5), np.float32), "a": rng.random(4), "é": rng.random((2, 1)).astype(np.float16),
        "count": np.array(7, np.int64), "flags": np.array([True, False]), "none": np.zeros((0, 3), np.float32),
        "transposed": rng.random((4, 6), np.float32).T,
    }  # fmt: skip
    pieces = []
    content = write_tensors(tmp_path / "ours", arrays, {"config": "{}"}, pieces.append)
    save_file(
        {name: np.array(array, order="C") for name, array in arrays.items()}, tmp_path / "theirs", {"config": "{}"}
    )
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert content == hashlib.sha256((tmp_path / "theirs").read_bytes()).hexdigest()
    assert sum(pieces) == (tmp_path / "ours").stat().st_size
