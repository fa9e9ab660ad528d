"""Losses of the Temporal Autoencoder (paper 3.1.1)."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.config import TAELoss
from moviegen.tae.model import TAE


def reconstruction_loss(reconstruction: ms.Tensor, video: ms.Tensor) -> ms.Tensor:
    """Mean absolute difference of two (B, 3, T, H, W)."""
    return (reconstruction - video).abs().mean()


def kl_loss(mean: ms.Tensor, logvar: ms.Tensor, num_pixel_frames: int) -> ms.Tensor:
    """KL divergence of N(mean, exp(logvar)) from N(0, 1), summed over the latent, a pixel frame.

    Args:
        mean, logvar: (B, C, T', H', W').
        num_pixel_frames: B * T, so that images and videos of any length weigh alike.
    """
    return 0.5 * (mean * mean + ops.exp(logvar) - 1 - logvar).sum() / num_pixel_frames


class TAETrainingLoss(nn.Cell):
    """Weighted sum of the terms, and each term by itself for the log."""

    terms = ("reconstruction", "kl")

    def __init__(self, tae: TAE, weights: TAELoss) -> None:
        super().__init__()
        self.tae = tae
        self.reconstruction_weight = weights.reconstruction
        self.kl_weight = weights.kl

    def construct(self, video: ms.Tensor, noise: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        """video (B, 3, T, H, W) in [-1, 1], noise latent-shaped -> total, reconstruction, KL (scalars)."""
        reconstructed, mean, logvar = self.tae(video, noise)
        reconstruction = reconstruction_loss(reconstructed, video)
        kl = kl_loss(mean, logvar, video.shape[0] * video.shape[2])
        return self.reconstruction_weight * reconstruction + self.kl_weight * kl, reconstruction, kl
