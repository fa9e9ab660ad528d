"""Positions that stand out, against a latent made by hand and the penalty itself."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.tae.losses import outlier_penalty_loss
from moviegen.tae.outliers import deviations


def test_one_position_among_equal_ones_is_as_many_deviations_away_as_there_are_others_to_the_root():
    """Of n positions, one at n and the others at 0: mean 1, variance n - 1, so it lies sqrt(n - 1) deviations out."""
    latent = np.zeros((2, 2, 3, 4))
    latent[0, 0, 1, 2], latent[:, 1, 0, 0] = 12, (3, 4)
    found = deviations(latent)
    assert found[0, 1, 2] == found[1, 0, 0] == pytest.approx(11**0.5)
    others = np.delete(found.reshape(2, -1), 6, axis=1)[0]
    np.testing.assert_allclose(others, 11**-0.5)


def test_a_frame_of_equal_positions_has_no_outlier():
    assert not deviations(np.full((3, 1, 2, 2), 7.0)).any()


@pytest.mark.parametrize("radius", [0.5, 1.5, 3.0])
def test_the_penalty_is_what_exceeds_the_radius(radius):
    latent = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    latent[:, 1, 4, 4] += 9
    centred = latent - latent.mean((2, 3), keepdims=True)
    latent /= np.sqrt((centred**2).sum(0).mean((1, 2)))[:, None, None]  # a frame's standard deviation is 1
    wanted = np.maximum(deviations(latent) - radius, 0).mean()
    assert float(outlier_penalty_loss(ms.Tensor(latent[None]), radius)) == pytest.approx(wanted, abs=1e-5)
