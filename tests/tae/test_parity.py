"""The same numbers as the released implementation."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from moviegen.config import TAEConfig
from moviegen.tae.model import TAE, Decode, Encode

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden" / "reference_tae.npz"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not here")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def tae(golden, tmp_path_factory):
    config = TAEConfig(
        base_channels=32, channel_multipliers=(1, 1, 2, 2), num_res_blocks=1, temporal_upsample_padding="zeros"
    )
    tae = TAE(config)
    published = {name.removeprefix("param/"): golden[name] for name in golden.files if name.startswith("param/")}
    path = tmp_path_factory.mktemp("golden") / "published.npz"
    np.savez(path, **published)
    tae.load_weights(path)
    return tae


@pytest.mark.parametrize("frames", [1, 8, 9, 16])
def test_encode_and_decode(tae, golden, frames):
    mean = Encode(tae)(ms.Tensor(golden[f"encode/{frames}/video"]))[0].asnumpy()
    wanted = golden[f"encode/{frames}/mean"]
    assert np.abs(mean - wanted).max() <= 1e-4 * np.abs(wanted).max()
    latent = golden[f"decode/{frames}/latent"]
    video = Decode(tae, 8 * latent.shape[2])(ms.Tensor(latent)).asnumpy()
    wanted = golden[f"decode/{frames}/video"]
    assert np.abs(video - wanted).max() <= 1e-4 * np.abs(wanted).max()
