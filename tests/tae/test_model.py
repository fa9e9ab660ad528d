import mindspore as ms
import numpy as np
import pytest

from moviegen.tae.losses import kl_loss, reconstruction_loss
from moviegen.tae.model import TAE, Decode, Encode, Reconstruct
from moviegen.tae.weights import inflate, load_tae, save_tae
from moviegen.weights import CheckpointError

RNG = np.random.default_rng(0)


def video(frames, height=16, width=24):
    return ms.Tensor(RNG.uniform(-1, 1, (1, 3, frames, height, width)), ms.float32)


@pytest.fixture(scope="module")
def tae(small):
    return TAE(small)


@pytest.mark.parametrize("frames", [1, 9])
def test_shapes(tae, frames):
    mean, logvar = Encode(tae)(video(frames))
    assert mean.shape == logvar.shape == (1, 16, -(-frames // 8), 2, 3)
    assert Decode(tae, frames)(mean).shape == (1, 3, frames, 16, 24)


def test_sizes_that_cannot_be_compressed_are_refused(tae):
    with pytest.raises(ValueError, match="divisible by 8"):
        tae.encode(video(1, height=20))
    latent = ms.Tensor(np.zeros((1, 16, 1, 2, 2)), ms.float32)
    with pytest.raises(ValueError, match="9 frames"):
        tae.decode(latent, 9)


def test_normalize_is_undone(tae):
    latent = RNG.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_allclose(tae.denormalize(tae.normalize(latent)), latent, atol=1e-6)
    assert tae.normalize(0.0609) == 0


def test_inflation_leaves_a_single_image_unchanged(small, tmp_path):
    config = small.model_copy(update={"is_temporal": False})
    image_autoencoder = TAE(config)
    save_tae(tmp_path / "image.safetensors", image_autoencoder, config)
    inflated = inflate(tmp_path / "image.safetensors", small)
    image = video(1)
    before, after = (Reconstruct(net)(image).asnumpy() for net in (image_autoencoder, inflated))
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()


def test_saved_weights_load_with_their_config(tae, small, tmp_path):
    path = tmp_path / "tae.safetensors"
    save_tae(path, tae, small.model_copy(update={"shift_factor": 0.5}))
    loaded = load_tae(path)
    assert loaded.config.shift_factor == 0.5
    for name, parameter in tae.parameters_and_names():
        np.testing.assert_array_equal(dict(loaded.parameters_and_names())[name].asnumpy(), parameter.asnumpy())


def test_damaged_and_foreign_files_are_refused(tae, small, tmp_path):
    path = tmp_path / "tae.safetensors"
    save_tae(path, tae, small)
    wider = small.model_copy(update={"base_channels": 8})
    with pytest.raises(CheckpointError, match="of another shape"):
        inflate(path, wider)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cannot read"):
        load_tae(path)


def test_losses_against_numpy():
    a, b = RNG.standard_normal((2, 2, 3, 4, 5, 6))
    loss = reconstruction_loss(ms.Tensor(a, ms.float32), ms.Tensor(b, ms.float32))
    assert float(loss) == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    mean, logvar = a, b
    wanted = 0.5 * np.sum(mean**2 + np.exp(logvar) - 1 - logvar) / 8
    assert float(kl_loss(ms.Tensor(mean, ms.float32), ms.Tensor(logvar, ms.float32), 8)) == pytest.approx(
        wanted, rel=1e-5
    )
