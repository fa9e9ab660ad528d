"""Files of weights under every naming, and what is refused."""

import json
import pickle
import re

import mindspore as ms
import numpy as np
import pytest

from moviegen.runs.arrays import CheckpointError, save_arrays
from moviegen.runs.weights import load_arrays, to_arrays
from moviegen.tae import naming
from moviegen.tae.model import TAE
from moviegen.tae.weights import export_diffusers, inflate, load_tae, load_weights, save_tae

RNG = np.random.default_rng(0)


def random_tae(config):
    tae = TAE(config)
    for parameter in tae.get_parameters():
        parameter.set_data(ms.Tensor(RNG.standard_normal(parameter.shape), parameter.dtype))
    return tae


@pytest.fixture(scope="module")
def tae(small):
    return random_tae(small)


@pytest.fixture(scope="module")
def arrays(tae):
    return to_arrays(dict(tae.parameters_and_names()))


@pytest.fixture(scope="module")
def spatial(arrays):
    return {name: array for name, array in arrays.items() if not naming.is_temporal(name)}


def written_out(name):
    """Diffusers' name of a tensor, put together by hand, part by part, from ours."""
    name = name.replace(".conv_spat.", ".")
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    parts = name.split(".")
    if parts[1] in ("down", "up"):
        level = parts[2] if parts[1] == "down" else str(3 - int(parts[2]))
        kind = {"block": ["resnets", parts[4]], "downsample_spat": ["downsamplers", "0"],
                "upsample_spat": ["upsamplers", "0"]}[parts[3]]  # fmt: skip
        parts = [parts[0], f"{parts[1]}_blocks", level, *kind, *parts[5 if parts[3] == "block" else 4 :]]
    elif parts[1] == "mid":
        place = {"block_1": ["resnets", "0"], "block_2": ["resnets", "1"], "attn_1": ["attentions", "0"]}[parts[2]]
        rest = parts[3:] if parts[2] != "attn_1" else parts[4:]
        if parts[2] == "attn_1":
            own = {"norm": ["group_norm"], "q": ["to_q"], "k": ["to_k"], "v": ["to_v"], "proj_out": ["to_out", "0"]}
            rest = [*own[rest[0]], *rest[1:]]
        parts = [parts[0], "mid_block", *place, *rest]
    renamed = {"norm_out": "conv_norm_out", "nin_shortcut": "conv_shortcut"}
    return ".".join(renamed.get(part, part) for part in parts)


def test_diffusers_names_are_those_written_out_by_hand(spatial):
    assert {naming.diffusers(name) for name in spatial} == {written_out(name) for name in spatial}
    for name in spatial:
        assert naming.diffusers(name) == written_out(name)


@pytest.mark.parametrize(
    ("ours", "single_file", "diffusers"),
    [
        ("encoder.conv_in.conv_spat.weight", "encoder.conv_in.weight", "encoder.conv_in.weight"),
        (
            "decoder.up.3.upsample_spat.conv.bias",
            "decoder.up.3.upsample.conv.bias",
            "decoder.up_blocks.0.upsamplers.0.conv.bias",
        ),
        (
            "encoder.mid.attn_1.0.proj_out.weight",
            "encoder.mid.attn_1.proj_out.weight",
            "encoder.mid_block.attentions.0.to_out.0.weight",
        ),
        (
            "decoder.up.0.block.2.nin_shortcut.conv_spat.weight",
            "decoder.up.0.block.2.nin_shortcut.weight",
            "decoder.up_blocks.3.resnets.2.conv_shortcut.weight",
        ),
        ("encoder.norm_out.gamma", "encoder.norm_out.weight", "encoder.conv_norm_out.weight"),
    ],
)
def test_names_of_the_published_vae(ours, single_file, diffusers):
    assert (naming.single_file(ours), naming.diffusers(ours)) == (single_file, diffusers)


def loads_to(config, path):
    loaded = TAE(config)
    load_weights(loaded, path)
    return to_arrays(dict(loaded.parameters_and_names()))


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_our_own_file_in_every_format(tae, small, arrays, tmp_path):
    save_tae(tmp_path / "tae.safetensors", tae)
    np.savez(tmp_path / "tae.npz", **arrays)
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in arrays.items()], str(tmp_path / "tae.ckpt"))
    for suffix in ("safetensors", "npz", "ckpt"):
        assert_equal(loads_to(small, tmp_path / f"tae.{suffix}"), arrays)


def test_the_published_projections_that_nothing_uses_are_passed_over(small, arrays, tmp_path):
    unused = {"encoder.mid.block_1.temb_proj.weight": np.ones((8, 512), np.float32)}
    save_arrays(tmp_path / "published.safetensors", arrays | unused)
    assert_equal(loads_to(small, tmp_path / "published.safetensors"), arrays)


def test_an_image_autoencoder_in_diffusers_naming_inflates(tae, small, spatial, tmp_path):
    export_diffusers(tmp_path / "vae.safetensors", tae)
    written, _ = load_arrays(tmp_path / "vae.safetensors")
    assert written["encoder.mid_block.attentions.0.to_q.weight"].ndim == 2
    assert len(written) == len(spatial)
    fresh = to_arrays(dict(TAE(small).parameters_and_names()))
    temporal = {name: array for name, array in fresh.items() if "conv_temp" in name or "_temp." in name}
    found = loads_to(small, tmp_path / "vae.safetensors")
    assert_equal({name: found[name] for name in spatial}, spatial)
    assert_equal({name: found[name] for name in temporal}, temporal)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_an_image_autoencoder_in_a_single_file_inflates(prefix, small, spatial, tmp_path):
    named = {prefix + naming.single_file(name): array for name, array in spatial.items()}
    whole_model = {"model.diffusion_model.x_embedder.proj.weight": np.ones(4, np.float32)} if prefix else {}
    save_arrays(tmp_path / "sd.safetensors", named | whole_model)
    found = loads_to(small, tmp_path / "sd.safetensors")
    assert_equal({name: found[name] for name in spatial}, spatial)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "network.model."])
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_network_saved_in_its_wrapper(wrapper, suffix, small, arrays, tmp_path):
    named = {wrapper + name: array for name, array in arrays.items()}
    if suffix == "ckpt":
        ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in named.items()], str(tmp_path / "tae.ckpt"))
    else:
        save_arrays(tmp_path / "tae.safetensors", named)
    assert_equal(loads_to(small, tmp_path / f"tae.{suffix}"), arrays)


def test_a_quantised_network_beside_the_autoencoder_is_not_looked_at(small, spatial, tmp_path):
    named = {"first_stage_model." + naming.single_file(name): array for name, array in spatial.items()}
    save_arrays(tmp_path / "sd.safetensors", named | {"model.diffusion_model.x.weight": np.ones(4, np.uint8)})
    content = (tmp_path / "sd.safetensors").read_bytes().replace(b'"U8"', b'"F8_E4M3"')
    length = int.from_bytes(content[:8], "little") + len('"F8_E4M3"') - len('"U8"')
    (tmp_path / "sd.safetensors").write_bytes(length.to_bytes(8, "little") + content[8:])
    found = loads_to(small, tmp_path / "sd.safetensors")
    assert_equal({name: found[name] for name in spatial}, spatial)


def test_half_precision_files_are_widened(small, arrays, tmp_path):
    half = [{"name": n, "data": ms.Tensor(a).astype(ms.bfloat16)} for n, a in arrays.items()]
    ms.save_checkpoint(half, str(tmp_path / "half.ckpt"))
    save_arrays(tmp_path / "half.safetensors", {name: array.astype(np.float16) for name, array in arrays.items()})
    for file, relative in (("half.ckpt", 2**-8), ("half.safetensors", 2**-11)):
        for name, array in loads_to(small, tmp_path / file).items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, arrays[name], rtol=relative, atol=1e-6)


def test_a_tae_that_lacks_one_temporal_weight_is_no_image_autoencoder(small, arrays, tmp_path):
    lost = "decoder.up.1.upsample_temp.conv.weight"
    save_arrays(tmp_path / "tae.safetensors", {name: array for name, array in arrays.items() if name != lost})
    with pytest.raises(CheckpointError, match=f"1 missing: {lost}"):
        loads_to(small, tmp_path / "tae.safetensors")


def test_unexpected_and_misshapen_names_are_listed(small, arrays, tmp_path):
    wrong = arrays | {"encoder.extra": np.ones(1, np.float32), "encoder.norm_out.gamma": np.ones(3, np.float32)}
    save_arrays(tmp_path / "tae.safetensors", wrong)
    with pytest.raises(CheckpointError) as error:
        loads_to(small, tmp_path / "tae.safetensors")
    assert "1 unexpected: encoder.extra" in str(error.value)
    assert "1 of another shape: encoder.norm_out.gamma: (3,) for (8,)" in str(error.value)


def test_a_vae_of_four_channels_is_refused(small, tmp_path):
    four = random_tae(small.model_copy(update={"latent_channels": 4, "is_temporal": False}))
    export_diffusers(tmp_path / "sdxl.safetensors", four)
    with pytest.raises(CheckpointError, match=r"encoder.conv_out.conv_spat.weight: \(8, 8, 3, 3\) for \(32, 8, 3, 3\)"):
        loads_to(small, tmp_path / "sdxl.safetensors")


def test_a_pickle_is_not_opened(small, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for suffix in ("pt", "pth", "bin", "pkl"):
        (tmp_path / f"bomb.{suffix}").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError, match="save it with safetensors"):
            loads_to(small, tmp_path / f"bomb.{suffix}")
    np.savez(tmp_path / "bomb.npz", bomb=np.array([Bomb()], dtype=object))
    with pytest.raises(CheckpointError, match="cannot read"):
        loads_to(small, tmp_path / "bomb.npz")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "npz"])
def test_truncated_garbage_and_missing_files(suffix, tae, small, arrays, tmp_path):
    path = tmp_path / f"tae.{suffix}"
    with pytest.raises(CheckpointError, match="cannot read"):
        loads_to(small, path)
    if suffix == "npz":
        np.savez(path, **arrays)
    elif suffix == "ckpt":
        ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in arrays.items()], str(path))
    else:
        save_tae(path, tae)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="cannot read"):
        loads_to(small, path)
    path.write_bytes(b"garbage" * 10)
    with pytest.raises(CheckpointError, match="cannot read"):
        loads_to(small, path)


def test_saved_weights_load_with_their_config(tae, small, arrays, tmp_path):
    path = tmp_path / "tae.safetensors"
    save_tae(path, tae, small.model_copy(update={"shift_factor": 0.5}))
    loaded = load_tae(path)
    assert loaded.config.shift_factor == 0.5
    assert_equal(to_arrays(dict(loaded.parameters_and_names())), arrays)


def test_a_file_without_its_config_or_with_another_versions_is_refused(arrays, small, tmp_path):
    save_arrays(tmp_path / "bare.safetensors", arrays)
    with pytest.raises(CheckpointError, match="no tae_config"):
        load_tae(tmp_path / "bare.safetensors")
    config = json.dumps(small.model_dump() | {"quant_conv": True})
    save_arrays(tmp_path / "other.safetensors", arrays, {"tae_config": config})
    with pytest.raises(CheckpointError, match="another version"):
        load_tae(tmp_path / "other.safetensors")


def test_inflation_into_a_wider_tae_is_refused(small, tmp_path):
    image = TAE(small.model_copy(update={"is_temporal": False}))
    save_tae(tmp_path / "image.safetensors", image)
    with pytest.raises(CheckpointError, match="of another shape"):
        inflate(tmp_path / "image.safetensors", small.model_copy(update={"base_channels": 8}))
