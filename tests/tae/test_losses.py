import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen.config import TAELoss
from moviegen.tae.losses import TAETrainingLoss

RNG = np.random.default_rng(0)
VIDEO, RECONSTRUCTION = RNG.uniform(-1, 1, (2, 2, 3, 5, 8, 8))
MEAN, LOGVAR, NOISE = RNG.standard_normal((3, 2, 16, 1, 1, 1))


class Fixed(nn.Cell):
    """A stand-in autoencoder: whatever it is given, the same reconstruction and posterior."""

    def __init__(self):
        super().__init__()
        self.outputs = tuple(ms.Tensor(array, ms.float32) for array in (RECONSTRUCTION, MEAN, LOGVAR))

    def construct(self, video, noise):
        return self.outputs


def test_training_loss_weighs_the_terms_and_returns_each_in_the_order_of_their_names():
    loss = TAETrainingLoss(Fixed(), TAELoss(reconstruction=3.0, kl=0.25))
    values = loss(ms.Tensor(VIDEO, ms.float32), ms.Tensor(NOISE, ms.float32))
    reconstruction = np.abs(RECONSTRUCTION - VIDEO).mean()
    kl = 0.5 * (MEAN**2 + np.exp(LOGVAR) - 1 - LOGVAR).sum() / (2 * 5)  # a frame of each of two videos of five
    wanted = (3.0 * reconstruction + 0.25 * kl, reconstruction, kl)
    assert [float(value) for value in values] == pytest.approx(wanted, rel=1e-5)
    assert loss.terms == ("reconstruction", "kl")
