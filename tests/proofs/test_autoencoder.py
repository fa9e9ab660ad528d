"""What is measured of the autoencoder's training, and its arithmetic."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.config import load
from moviegen.proofs import autoencoder


def test_numbers_are_rounded_as_mindspore_casts_them():
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    numbers[:2] = 1 + 2**-8, 1 + 3 * 2**-8  # in the middle of two
    cast = ms.Tensor(numbers).astype(ms.bfloat16).astype(ms.float32).asnumpy()
    np.testing.assert_array_equal(autoencoder.rounded(numbers), cast)


def test_kilobytes_of_a_pixel_are_those_of_the_frames_between_the_clips():
    assert autoencoder.slope([10**6, 10**6 + 8 * 64 * 64 * 5000]) == pytest.approx(5)


def test_rounding_changes_a_reconstruction_and_hardly(tmp_path):
    """Not at all would mean that nothing was rounded: numbers of 8 bits cannot agree to 80 dB."""
    tae = load("tiny").tae
    case = {"measured": "rounding", "weights": tae.start_checkpoint, "config": tae.model.model_dump()}
    assert 35 < autoencoder.measured(case, tmp_path)["psnr"] < 80
