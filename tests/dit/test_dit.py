from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from moviegen.config import DiTConfig
from moviegen.dit.model import DiT, patchify, unpatchify
from moviegen.dit.positions import grow_table
from moviegen.dit.weights import load_dit, save_dit
from moviegen.weights import CheckpointError, assign

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden" / "reference_dit.npz"
RNG = np.random.default_rng(0)


def randomize(dit):
    for name, parameter in dit.parameters_and_names():
        if name.endswith("proj.weight"):  # the output projection starts at zero
            parameter.set_data(ms.Tensor(RNG.standard_normal(parameter.shape) * 0.3, ms.float32))
    return dit


def inputs(config, frames=1, height=4, width=6):
    text = [RNG.standard_normal((2, length, w)) for length, w in zip((3, 2, 2), config.text_widths, strict=True)]
    latent = RNG.standard_normal((2, config.latent_channels, frames, height, width))
    return [ms.Tensor(array, ms.float32) for array in (latent, np.array([10.0, 900.0]), *text)]


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not here")
@pytest.mark.parametrize("case", [0, 1, 2])
def test_the_same_numbers_as_the_released_implementation(case):
    golden = np.load(GOLDEN)
    dit = DiT(DiTConfig(width=64, ffn_width=176, num_heads=4, num_layers=2, max_size=(4, 8, 8)))
    published = {name.removeprefix("param/"): golden[name] for name in golden.files if name.startswith("param/")}
    assign(dict(dit.parameters_and_names()), published, "golden")
    given = {key: golden[f"case{case}/{key}"] for key in ("latent", "timestep", "ul2", "metaclip", "byt5", "output")}
    latent = ms.Tensor(given["latent"].swapaxes(1, 2))
    others = (ms.Tensor(given[key].astype(np.float32)) for key in ("timestep", "ul2", "metaclip", "byt5"))
    out = dit(latent, *others).asnumpy().swapaxes(1, 2)
    assert np.abs(out - given["output"]).max() <= 1e-4 * np.abs(given["output"]).max()


def test_untrained_velocity_is_exactly_zero(small):
    assert not DiT(small)(*inputs(small)).asnumpy().any()


def test_padding_tokens_change_nothing_when_masked(small):
    dit, given = randomize(DiT(small)), inputs(small)
    keep = ms.Tensor(np.array([[1, 1, 0, 1, 1, 1, 0]] * 2, bool))
    changed = [given[0], given[1], given[2].asnumpy().copy(), given[3], given[4]]
    changed[2][:, 2] += 5
    changed[2] = ms.Tensor(changed[2])
    np.testing.assert_allclose(dit(*given, keep).asnumpy(), dit(*changed, keep).asnumpy(), atol=1e-6)
    assert np.abs(dit(*given).asnumpy() - dit(*changed).asnumpy()).max() > 1e-3


def test_latents_beyond_the_tables_are_refused_by_both_sizes(small):
    with pytest.raises(ValueError, match=r"\(1, 2, 4\).*\(1, 2, 3\)"):
        DiT(small)(*inputs(small, width=8))
    with pytest.raises(ValueError, match="even"):
        DiT(small)(*inputs(small, width=5))


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


def test_an_image_sees_nothing_of_a_new_temporal_table(small, tmp_path):
    dit, given = randomize(DiT(small)), inputs(small)
    save_dit(tmp_path / "dit.safetensors", dit)
    grown = load_dit(tmp_path / "dit.safetensors", small.model_copy(update={"max_size": (4, 2, 3)}))
    np.testing.assert_array_equal(grown(*given).asnumpy(), dit(*given).asnumpy())


def test_weights_of_another_size_are_refused_by_name(small, tmp_path):
    save_dit(tmp_path / "dit.safetensors", DiT(small))
    with pytest.raises(CheckpointError, match=r"layers.1.*missing|missing.*layers.1"):
        load_dit(tmp_path / "dit.safetensors", small.model_copy(update={"num_layers": 2}))
