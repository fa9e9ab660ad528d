import mindspore as ms
import numpy as np
import pytest

from moviegen.tae.model import TAE, Decode, Encode, Reconstruct
from moviegen.tae.weights import inflate, save_tae

pytestmark = pytest.mark.usefixtures("eager")
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


@pytest.fixture(scope="module", params=["replicate", "zeros"])
def inflation(request, small, tmp_path_factory):
    """An image autoencoder and the TAE it inflates to, whose temporal upsampling pads as the parameter says."""
    path = tmp_path_factory.mktemp("inflation") / "image.safetensors"
    image_autoencoder = TAE(small.model_copy(update={"is_temporal": False}))
    save_tae(path, image_autoencoder)
    return image_autoencoder, inflate(path, small.model_copy(update={"temporal_upsample_padding": request.param}))


def test_inflation_leaves_a_single_image_unchanged(inflation):
    image = video(1)
    before, after = (Reconstruct(network)(image).asnumpy() for network in inflation)
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()


def test_inflation_treats_every_frame_of_a_still_clip_as_the_image(inflation):
    image = video(1)
    still = ms.Tensor(np.repeat(image.asnumpy(), 9, 2))
    wanted = Reconstruct(inflation[0])(image).asnumpy()
    found = Reconstruct(inflation[1])(still).asnumpy()
    for frame in range(9):
        assert np.abs(found[:, :, frame] - wanted[:, :, 0]).max() <= 1e-5 * np.abs(wanted).max(), frame


def test_padding_shows_at_the_temporal_borders_once_temporal_weights_are_not_the_identity(small):
    """A still clip stays still through replicate padding; zeros darken its first and last frames."""
    moved = {}
    for padding in ("replicate", "zeros"):
        tae = TAE(small.model_copy(update={"temporal_upsample_padding": padding}))
        rng = np.random.default_rng(1)
        for name, parameter in tae.parameters_and_names():
            if "temp." in name and "weight" in name:
                noise = 0.05 * rng.standard_normal(parameter.shape)
                parameter.set_data(ms.Tensor(parameter.asnumpy() + noise, ms.float32))
        still = ms.Tensor(np.repeat(video(1).asnumpy(), 32, 2))
        frames = Reconstruct(tae)(still).asnumpy()[0].transpose(1, 0, 2, 3)
        moved[padding] = np.abs(frames - frames[16]).max((1, 2, 3)) / np.abs(frames).max()
    assert moved["replicate"].max() < 1e-4
    assert moved["zeros"][[0, -1]].min() > 1e-3
