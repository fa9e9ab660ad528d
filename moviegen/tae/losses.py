"""Losses of the Temporal Autoencoder (paper 3.1.1; original report, hyperparameters of its evaluation)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, nn, ops

from moviegen.config import TAELoss
from moviegen.tae.layers import fold_time
from moviegen.tae.lpips import LPIPS
from moviegen.tae.model import TAE

TINY = 1e-12  # under roots, whose slope at zero is infinite


# 3.1.1: L1
def reconstruction_loss(reconstruction: ms.Tensor, video: ms.Tensor) -> ms.Tensor:
    """Mean absolute difference of two (B, 3, T, H, W)."""
    return (reconstruction - video).abs().mean()


# 3.1.1: perceptual
def perceptual_loss(lpips: LPIPS, reconstruction: ms.Tensor, video: ms.Tensor) -> ms.Tensor:
    """Mean LPIPS distance of the frames of two (B, 3, T, H, W) in [-1, 1]."""
    return lpips(fold_time(reconstruction.swapaxes(1, 2)), fold_time(video.swapaxes(1, 2))).mean()


# 3.1.1: the autoencoder's prior
def kl_loss(mean: ms.Tensor, logvar: ms.Tensor, num_pixel_frames: int) -> ms.Tensor:
    """KL divergence of N(mean, exp(logvar)) from N(0, 1), summed over the latent, a pixel frame.

    Args:
        mean, logvar: (B, C, T', H', W').
        num_pixel_frames: B * T, so that images and videos of any length weigh alike.
    """
    return 0.5 * (mean * mean + ops.exp(logvar) - 1 - logvar).sum() / num_pixel_frames


# 3.1.1, equation 1: OPL
def outlier_penalty_loss(latent: ms.Tensor, radius: float) -> ms.Tensor:
    """How far positions stand out of their own latent frame (paper 3.1.1, eq. 1; "OPL").

    mean over frames and positions of max(|x - mean(x)| - radius * |std(x)|, 0), where mean and standard deviation are
    over the positions of a frame, and |.| is the length of a vector of C channels.

    Args:
        latent: (B, C, T', H', W').
        radius: r; the paper's is 3.
    """
    positions = latent.reshape(*latent.shape[:3], -1)
    centred = positions - positions.mean(-1, keep_dims=True)
    distance = ops.sqrt((centred * centred).sum(1) + TINY)
    spread = ops.sqrt((centred * centred).mean(-1).sum(1) + TINY)
    return ops.relu(distance - radius * spread.expand_dims(-1)).mean()


class TAETrainingLoss(nn.Cell):
    """Weighted sum of the terms, and each term by itself for the log.

    Args:
        lpips: None leaves the perceptual term out.
        has_outlier_penalty: whether that term is part of the loss.

    Attributes:
        terms: names of what `construct` returns after the total.
    """

    def __init__(self, tae: TAE, weights: TAELoss, lpips: LPIPS | None, has_outlier_penalty: bool) -> None:
        super().__init__()
        self.tae = tae
        if lpips is not None:
            lpips.compute_in(tae.dtype)
            self.lpips = lpips
        self.reconstruction_weight, self.kl_weight = weights.reconstruction, weights.kl
        self.perceptual_weight = weights.perceptual
        self.full_outlier_weight, self.outlier_radius = weights.outlier, weights.outlier_radius
        self.has_perceptual, self.has_outlier_penalty = lpips is not None, has_outlier_penalty
        optional = {"perceptual": self.has_perceptual, "outlier": self.has_outlier_penalty}
        self.terms = ("reconstruction", "kl", *(name for name, has_it in optional.items() if has_it))
        if has_outlier_penalty:
            self.outlier_weight = Parameter(ms.Tensor(weights.outlier, ms.float32), requires_grad=False)

    def penalise_outliers(self, does: bool) -> None:
        """Whether the outlier penalty counts from now on, where the loss has it: one compiled graph serves both."""
        self.outlier_weight.set_data(ms.Tensor(self.full_outlier_weight if does else 0.0, ms.float32))

    def construct(self, video: ms.Tensor, noise: ms.Tensor, frames: ms.Tensor | None = None) -> tuple[ms.Tensor, ...]:
        """Total and each term (scalars).

        Args:
            video: (B, 3, T, H, W) in [-1, 1].
            noise: latent-shaped.
            frames: int32 (F,), numbers of those that the perceptual term sees; None: all.
        """
        reconstructed, mean, logvar, latent = self.tae(video, noise)
        reconstruction = reconstruction_loss(reconstructed, video)
        kl = kl_loss(mean, logvar, video.shape[0] * video.shape[2])
        total = self.reconstruction_weight * reconstruction + self.kl_weight * kl
        terms = (reconstruction, kl)  # a tuple that grows: mypy is told below, as an annotation would be compiled
        if self.has_perceptual:
            if frames is not None:
                reconstructed, video = ops.gather(reconstructed, frames, 2), ops.gather(video, frames, 2)
            perceptual = perceptual_loss(self.lpips, reconstructed, video)
            total, terms = total + self.perceptual_weight * perceptual, (*terms, perceptual)  # type: ignore[assignment]
        if self.has_outlier_penalty:
            outlier = outlier_penalty_loss(latent, self.outlier_radius)
            total, terms = total + self.outlier_weight * outlier, (*terms, outlier)  # type: ignore[assignment]
        return (total, *terms)
