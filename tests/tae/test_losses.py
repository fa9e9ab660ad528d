import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from moviegen.config import TAEConfig, TAELoss
from moviegen.tae.losses import TAETrainingLoss, kl_loss, outlier_penalty_loss, reconstruction_loss
from moviegen.tae.lpips import LPIPS
from moviegen.tae.model import TAE

RNG = np.random.default_rng(0)
VIDEO, RECONSTRUCTION = RNG.uniform(-1, 1, (2, 2, 3, 5, 8, 8))
MEAN, LOGVAR, NOISE = RNG.standard_normal((3, 2, 16, 1, 1, 1))
LATENT = RNG.standard_normal((2, 16, 3, 4, 5))
LATENT[0, :, 1, 2, 3] += 12  # a position that stands out
RADIUS = 1.2  # some positions are within it, some beyond


def tensor(array):
    return ms.Tensor(array, ms.float32)


def numpy_kl(mean, logvar, frames):
    return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum() / frames


def numpy_outlier_penalty(latent, radius):
    """Frame by frame and position by position, as the paper writes it."""
    values = []
    for video in latent:
        for frame in video.swapaxes(0, 1):
            mean, std = frame.mean((1, 2)), frame.std((1, 2))
            for row, column in np.ndindex(frame.shape[1:]):
                away = np.linalg.norm(frame[:, row, column] - mean)
                values.append(max(away - radius * np.linalg.norm(std), 0))
    return np.mean(values)


class Fixed(nn.Cell):
    """A stand-in autoencoder: whatever it is given, the same reconstruction, posterior and latent."""

    def __init__(self):
        super().__init__()
        self.dtype = ms.float32
        self.outputs = tuple(tensor(array) for array in (RECONSTRUCTION, MEAN, LOGVAR, LATENT))

    def construct(self, video, noise):
        return self.outputs


class Differences(nn.Cell):
    """A stand-in for LPIPS: the mean absolute difference of each pair of images."""

    def compute_in(self, dtype):
        """Always in float32."""

    def construct(self, a, b):
        return (a - b).abs().mean((1, 2, 3))


@pytest.mark.parametrize(
    ("lpips", "has_outlier_penalty", "terms"),
    [
        (None, False, ("reconstruction", "kl")),
        (None, True, ("reconstruction", "kl", "outlier")),
        (Differences(), False, ("reconstruction", "kl", "perceptual")),
        (Differences(), True, ("reconstruction", "kl", "perceptual", "outlier")),
    ],
)
def test_training_loss_weighs_the_terms_and_returns_each_in_the_order_of_their_names(lpips, has_outlier_penalty, terms):
    weights = TAELoss(reconstruction=3.0, kl=0.25, perceptual=0.5, outlier=7.0, outlier_radius=RADIUS)
    loss = TAETrainingLoss(Fixed(), weights, lpips, has_outlier_penalty)
    difference = np.abs(RECONSTRUCTION - VIDEO).mean()
    known = {
        "reconstruction": (3.0, difference),
        "kl": (0.25, numpy_kl(MEAN, LOGVAR, 2 * 5)),  # a frame of each of two videos of five
        "perceptual": (0.5, difference),
        "outlier": (7.0, numpy_outlier_penalty(LATENT, RADIUS)),
    }
    wanted = [sum(known[name][0] * known[name][1] for name in terms), *(known[name][1] for name in terms)]
    assert loss.terms == terms
    assert [float(value) for value in loss(tensor(VIDEO), tensor(NOISE))] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("radius", [0.5, RADIUS, 3.0])
def test_outlier_penalty_against_the_papers_formula(radius):
    wanted = numpy_outlier_penalty(LATENT, radius)
    assert float(outlier_penalty_loss(tensor(LATENT), radius)) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert wanted > 0


def test_outlier_penalty_of_frames_without_outliers_is_zero():
    assert float(outlier_penalty_loss(tensor(np.tile([1.0, -1.0], (1, 16, 2, 4, 2))), 3.0)) == 0


def outlier_of(x):
    return outlier_penalty_loss(x, RADIUS)


def reconstruction_of(x):
    return reconstruction_loss(x, tensor(VIDEO))


def kl_of_mean(x):
    return kl_loss(x, tensor(LOGVAR), 10)


def kl_of_logvar(x):
    return kl_loss(tensor(MEAN), x, 10)


@pytest.mark.parametrize(
    ("loss", "reference", "point"),
    [
        (outlier_of, lambda x: numpy_outlier_penalty(x, RADIUS), LATENT),
        (reconstruction_of, lambda x: np.abs(x - VIDEO).mean(), RECONSTRUCTION),
        (kl_of_mean, lambda x: numpy_kl(x, LOGVAR, 10), MEAN),
        (kl_of_logvar, lambda x: numpy_kl(MEAN, x, 10), LOGVAR),
    ],
)
def test_gradients_by_finite_differences(loss, reference, point):
    gradient = ops.grad(loss)(tensor(point)).asnumpy()
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(point.shape)
        slope = (reference(point + 1e-6 * direction) - reference(point - 1e-6 * direction)) / 2e-6
        assert (gradient * direction).sum() == pytest.approx(slope, rel=2e-3, abs=1e-6)


def test_gradient_of_a_constant_latent_is_finite():
    gradient = ops.grad(outlier_of)(tensor(np.ones((1, 16, 1, 2, 2))))
    assert np.isfinite(gradient.asnumpy()).all()


def test_the_perceptual_term_sees_the_frames_it_is_given():
    weights, frames = TAELoss(reconstruction=0.0, kl=0.0, perceptual=1.0), [1, 4]
    loss = TAETrainingLoss(Fixed(), weights, Differences(), False)
    total, reconstruction, _, perceptual = map(float, loss(tensor(VIDEO), tensor(NOISE), ms.Tensor(frames, ms.int32)))
    assert total == perceptual == pytest.approx(np.abs(RECONSTRUCTION - VIDEO)[:, :, frames].mean(), rel=1e-5)
    assert reconstruction == pytest.approx(np.abs(RECONSTRUCTION - VIDEO).mean(), rel=1e-5)  # of all frames


def test_gradient_of_the_whole_loss_with_lpips_follows_the_loss():
    """Along the gradient of a small autoencoder's weights, by differences of the loss; VGG16 has random weights."""
    ms.set_seed(1)
    config = TAEConfig(base_channels=4, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, num_groups=2)
    lpips = LPIPS()
    for number, head in enumerate(lpips.heads):
        head.set_data(tensor(np.random.default_rng(number).uniform(0, 1, head.shape)))
    loss = TAETrainingLoss(TAE(config), TAELoss(reconstruction=1.0, kl=1e-3, perceptual=1.0), lpips, False)
    video, noise = RNG.uniform(-1, 1, (1, 3, 9, 16, 16)), RNG.standard_normal((1, 16, 2, 2, 2))
    inputs = tensor(video), tensor(noise), ms.Tensor([2, 7], ms.int32)
    weights = loss.trainable_params()
    assert len(weights) == len(loss.tae.trainable_params())  # LPIPS is frozen

    def total(*given):
        return loss(*given)[0]

    gradients = ms.value_and_grad(total, None, weights)(*inputs)[1]
    gradients = [gradient.asnumpy().astype(float) for gradient in gradients]
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    direction = [gradient / length for gradient in gradients]
    slope = length  # along the gradient
    # a small step: normalised features of so few positions bend within a larger one
    start, losses, step = [weight.asnumpy().copy() for weight in weights], [], 1e-5
    for sign in (1, -1):
        for weight, value, part in zip(weights, start, direction, strict=True):
            weight.set_data(tensor(value + sign * step * part))
        losses.append(float(loss(*inputs)[0]))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=0.03)
