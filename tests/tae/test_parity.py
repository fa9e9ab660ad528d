"""The same numbers as the released implementation."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.tae.model import TAE, Decode, Encode
from moviegen.tae.weights import load_weights
from tests.golden import FRAMES, SETS, difference, weights


@pytest.fixture(scope="module", params=SETS.values(), ids=SETS)
def golden(request):
    return request.param


@pytest.fixture(scope="module")
def coder(golden, tmp_path_factory):
    """A TAE that took the released weights from a file, as two Cells that encode and decode."""
    path = tmp_path_factory.mktemp("golden") / "published.npz"
    np.savez(path, **weights(golden.read("tae")))
    tae = TAE(golden.tae)
    load_weights(tae, path)
    return Encode(tae), Decode(tae)


def check(coder, golden, frames):
    (encode, decode), arrays = coder, golden.read("tae")
    mean, _ = encode(ms.Tensor(arrays[f"encode/{frames}/video"]))
    assert difference(mean.asnumpy(), arrays[f"encode/{frames}/mean"]) <= 1e-5
    video = decode(ms.Tensor(arrays[f"decode/{frames}/latent"]))
    assert difference(video.asnumpy(), arrays[f"decode/{frames}/video"]) <= 1e-5


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("frames", FRAMES)
def test_encode_and_decode(coder, golden, frames):
    check(coder, golden, frames)


def test_encode_and_decode_as_compiled_graphs(coder, golden):
    check(coder, golden, 9)
