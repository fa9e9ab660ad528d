"""The Temporal Autoencoder against diffusers' AutoencoderKL (spatial layers) and a PyTorch twin (all of it)."""

import mindspore as ms
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from mindspore import nn, ops
from safetensors.torch import load_file, save_file

from moviegen.config import TAEConfig
from moviegen.runs.weights import assign, to_arrays
from moviegen.tae.losses import reconstruction_loss
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.weights import export_diffusers, load_weights
from tests.parity.comparing import assert_equal, random_weights
from tests.parity.names import torch_name
from tests.parity.torch_tae import TorchTAE

RNG = np.random.default_rng(0)
SD35 = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "force_upcast": True,
}
SMALL = TAEConfig(base_channels=8, channel_multipliers=(1, 2, 2, 4), num_res_blocks=1, num_groups=4)
GRADIENTS_OF = (
    "encoder.conv_in.conv_spat.weight",
    "encoder.down.1.downsample_temp.conv.weight",
    "encoder.mid.attn_1.1.to_v.weight",
    "decoder.mid.attn_1.0.k.weight",
    "decoder.up.2.upsample_temp.conv.weight",
    "decoder.up.0.block.0.nin_shortcut.conv_temp.weight",
    "decoder.norm_out.gamma",
)
GRADIENTS_FROM_TWO_LATENT_FRAMES_OF = ("encoder.mid.attn_1.1.to_q.weight",)  # one attends to itself, whatever q is

CLIPS = (("replicate", 1), ("replicate", 9), ("replicate", 16), ("zeros", 9))  # padding, frames


def uniform(*shape):
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def shapes(module):
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


# diffusers


@pytest.fixture(scope="module")
def vae():
    """The SD3.5 VAE at random weights."""
    vae = AutoencoderKL(**SD35).eval()
    vae.load_state_dict({name: torch.tensor(array) for name, array in random_weights(shapes(vae)).items()})
    return vae


@pytest.fixture(scope="module")
def vae_file(vae, tmp_path_factory):
    path = tmp_path_factory.mktemp("vae") / "diffusion_pytorch_model.safetensors"
    save_file(vae.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def image():
    return uniform(1, 3, 64, 48)


@pytest.fixture(scope="module")
def latent():
    return uniform(1, 16, 8, 6)


@pytest.fixture(scope="module")
def moments(vae, image):
    """The reference's mean and log-variance."""
    posterior = vae.encode(torch.tensor(image)).latent_dist
    return posterior.mean.numpy(), posterior.logvar.numpy()


@pytest.fixture(scope="module")
def decoded(vae, latent):
    return vae.decode(torch.tensor(latent)).sample.numpy()


def load(path, is_temporal):
    tae = TAE(TAEConfig(is_temporal=is_temporal))
    load_weights(tae, path)
    return tae


@pytest.fixture(scope="module")
def image_tae(vae_file):
    return load(vae_file, is_temporal=False)


@pytest.fixture(scope="module")
def inflated(vae_file):
    return load(vae_file, is_temporal=True)


def still(array, frames):
    """(1, C, H, W) -> (1, C, frames, H, W)."""
    return ms.Tensor(np.repeat(array[:, :, None], frames, 2))


def test_config_is_sd35s():
    config = TAEConfig()
    widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
    assert tuple(widths) == SD35["block_out_channels"]
    assert (config.scaling_factor, config.shift_factor) == (SD35["scaling_factor"], SD35["shift_factor"])


def test_image_autoencoder_encodes_and_decodes_as_diffusers(image_tae, image, latent, moments, decoded):
    for ours, reference in zip(Encode(image_tae)(still(image, 1)), moments, strict=True):
        assert_equal(ours.asnumpy()[:, :, 0], reference)
    assert_equal(Decode(image_tae, 1)(still(latent, 1)).asnumpy()[:, :, 0], decoded)


@pytest.mark.parametrize("frames", [1, 9])
def test_inflated_tae_treats_every_frame_of_a_still_clip_as_diffusers(
    inflated, image, latent, moments, decoded, frames
):
    length = -(-frames // 8)
    for ours, reference in zip(Encode(inflated)(still(image, frames)), moments, strict=True):
        assert_equal(ours.asnumpy(), np.repeat(reference[:, :, None], length, 2))
    video = Decode(inflated, frames)(still(latent, length)).asnumpy()
    assert_equal(video, np.repeat(decoded[:, :, None], frames, 2))


@pytest.mark.parametrize("is_temporal", [False, True])
def test_exported_weights_load_strictly_into_diffusers(is_temporal, image, latent, tmp_path):
    tae = TAE(TAEConfig(is_temporal=is_temporal))
    parameters = dict(tae.parameters_and_names())
    spatial = {name: p.shape for name, p in parameters.items() if "temp" not in name and "attn_1.1." not in name}
    assign(parameters, to_arrays(parameters) | random_weights(spatial, seed=1), "random")
    export_diffusers(tmp_path / "vae.safetensors", tae)
    vae = AutoencoderKL(**SD35).eval()
    vae.load_state_dict(load_file(tmp_path / "vae.safetensors"), strict=True)
    posterior = vae.encode(torch.tensor(image)).latent_dist
    for ours, reference in zip(Encode(tae)(still(image, 1)), (posterior.mean, posterior.logvar), strict=True):
        assert_equal(ours.asnumpy()[:, :, 0], reference.numpy())
    decoded = vae.decode(torch.tensor(latent)).sample.numpy()
    assert_equal(Decode(tae, 1)(still(latent, 1)).asnumpy()[:, :, 0], decoded)


# the twin


class L1(nn.Cell):
    """What is differentiated: the reconstruction's error, the latent being the mean."""

    def __init__(self, tae):
        super().__init__()
        self.tae = tae

    def construct(self, video):
        return reconstruction_loss(self.tae.decode(self.tae.encode(video)[0], video.shape[2]), video)


@pytest.fixture(scope="module")
def twins(request):
    """A TAE and its twin with the same random weights, temporal layers among them; the parameter is the padding."""
    config = SMALL.model_copy(update={"temporal_upsample_padding": request.param})
    tae, twin = TAE(config), TorchTAE(config)
    parameters = dict(tae.parameters_and_names())
    arrays = random_weights({name: parameter.shape for name, parameter in parameters.items()})
    assign(parameters, arrays, "random")
    twin.load(arrays)
    return tae, twin


@pytest.mark.parametrize(("twins", "frames"), CLIPS, indirect=["twins"])
def test_encode_and_decode_as_the_twin(twins, frames):
    tae, twin = twins
    video, latent = uniform(2, 3, frames, 32, 24), uniform(2, 16, -(-frames // 8), 4, 3)
    for ours, reference in zip(Encode(tae)(ms.Tensor(video)), twin.encode(torch.tensor(video)), strict=True):
        assert_equal(ours.asnumpy(), reference.numpy())
    reference = twin.decode(torch.tensor(latent), frames).numpy()
    assert_equal(Decode(tae, frames)(ms.Tensor(latent)).asnumpy(), reference)


@pytest.mark.parametrize(("twins", "frames"), CLIPS, indirect=["twins"])
def test_gradients_as_the_twins(twins, frames):
    tae, twin = twins
    video = uniform(2, 3, frames, 32, 24)
    parameters = dict(tae.parameters_and_names())
    names = GRADIENTS_OF + (GRADIENTS_FROM_TWO_LATENT_FRAMES_OF if frames > 8 else ())
    weights = ms.ParameterTuple([parameters[name] for name in names])
    loss, gradients = ops.value_and_grad(L1(tae), grad_position=None, weights=weights)(ms.Tensor(video))

    twin.zero_grad()
    with torch.enable_grad():
        clip = torch.tensor(video)
        reference = (twin.decode(twin.encode(clip)[0], frames) - clip).abs().mean()
        reference.backward()
    assert float(loss) == pytest.approx(float(reference), rel=1e-4)
    references = dict(twin.named_parameters())
    for name, ours in zip(names, gradients, strict=True):
        wanted = references[torch_name(name)].grad.numpy()
        assert_equal(ours.asnumpy().reshape(wanted.shape), wanted)
