"""The Temporal Autoencoder: video to latent and back, 8x smaller in time, height and width (paper 3.1.1)."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from moviegen.config import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, TAEConfig
from moviegen.tae.coder import Decoder, Encoder
from moviegen.tae.layers import ResnetBlock, fold_time, unfold_time


class TAE(nn.Cell):
    """Encodes and decodes images (T = 1) and videos of any length; H and W must be divisible by 8.

    With `is_temporal` off in its config this is the image autoencoder that a TAE inflates: the same layers under the
    same names, without the temporal ones; it treats a video's frames one by one (T' = T).
    """

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        self.config, self.dtype = config, ms.float32
        self.stretch = TEMPORAL_COMPRESSION if config.is_temporal else 1
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, video: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        """Mean and log-variance of the latent.

        Args:
            video: (B, 3, T, H, W) in [-1, 1].

        Returns:
            two (B, C, ceil(T/8), H/8, W/8).

        Raises:
            ValueError: H or W is not divisible by 8, or there is not one frame of three channels.
        """
        _, channels, num_frames, height, width = video.shape
        if channels != 3 or num_frames < 1 or height % SPATIAL_COMPRESSION or width % SPATIAL_COMPRESSION:
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, 3, T >= 1, H, W) with H and W divisible by "
                f"{SPATIAL_COMPRESSION}"
            )
        moments = self.encoder(fold_time(video.swapaxes(1, 2)).astype(self.dtype), num_frames).astype(video.dtype)
        moments = unfold_time(moments, -(-num_frames // self.stretch)).swapaxes(1, 2)
        mean, logvar = moments[:, : self.config.latent_channels], moments[:, self.config.latent_channels :]
        return mean, ops.clamp(logvar, -30.0, 20.0)

    def decode(self, latent: ms.Tensor, num_frames: int) -> ms.Tensor:
        """The first `num_frames` frames of the decoded latent.

        Args:
            latent: (B, C, T', H', W').
            num_frames: T, at most 8 T'; the rest is spurious and dropped.

        Returns:
            (B, 3, T, 8H', 8W').

        Raises:
            ValueError: the latent's channels are not the model's, or it is too short for `num_frames`.
        """
        length = latent.shape[2]
        if latent.shape[1] != self.config.latent_channels or not 0 < num_frames <= length * self.stretch:
            raise ValueError(
                f"latent of shape {tuple(latent.shape)} cannot be decoded to {num_frames} frames: wanted "
                f"(B, {self.config.latent_channels}, T' >= T/8, H', W')"
            )
        frames = self.decoder(fold_time(latent.swapaxes(1, 2)).astype(self.dtype), length).astype(latent.dtype)
        video = unfold_time(frames, length * self.stretch)
        if num_frames < length * self.stretch:  # a slice of all is a copy
            video = video[:, :num_frames]
        return video.swapaxes(1, 2)

    def construct(self, video: ms.Tensor, noise: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor, ms.Tensor]:
        """Reconstruction, mean, log-variance, and the latent sampled with `noise` (standard normal, latent-shaped)."""
        mean, logvar = self.encode(video)
        latent = mean + ops.exp(0.5 * logvar) * noise
        return self.decode(latent, video.shape[2]), mean, logvar, latent

    def residual_blocks(self) -> list[ResnetBlock]:
        """Those of the encoder and then of the decoder, in the order in which they compute."""
        down = [block for level in self.encoder.down for block in level.block]
        up = [block for level in reversed(list(self.decoder.up)) for block in level.block]
        middles = [[coder.mid.block_1, coder.mid.block_2] for coder in (self.encoder, self.decoder)]
        return [*down, *middles[0], *middles[1], *up]

    def compute_in(self, dtype: ms.Type) -> None:
        """The type of the arithmetic; weights, inputs and outputs stay float32. Before anything is compiled."""
        self.dtype = dtype

    def recompute_blocks(self, every_nth: int) -> None:
        """Forgets activations inside every n-th residual block, and computes them again on the way back; 0: of none."""
        for block in self.residual_blocks()[every_nth - 1 :: every_nth] if every_nth else ():
            block.recompute()

    def normalize(self, latent: ms.Tensor) -> ms.Tensor:
        """A latent as the transformer takes it: (z - shift) * scaling."""
        return (latent - self.config.shift_factor) * self.config.scaling_factor

    def denormalize(self, latent: ms.Tensor) -> ms.Tensor:
        """The inverse of `normalize`."""
        return latent / self.config.scaling_factor + self.config.shift_factor


class Encode(nn.Cell):
    """The encoder's mean as a compiled graph: (B, 3, T, H, W) -> (mean, logvar), see `TAE.encode`."""

    def __init__(self, tae: TAE) -> None:
        super().__init__()
        self.tae = tae

    def construct(self, video: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        return self.tae.encode(video)


class Decode(nn.Cell):
    """The decoder as a compiled graph: (B, C, T', H', W') -> (B, 3, num_frames, H, W), see `TAE.decode`.

    Without `num_frames`, all 8 T' of them.
    """

    def __init__(self, tae: TAE, num_frames: int | None = None) -> None:
        super().__init__()
        self.tae, self.num_frames = tae, num_frames

    def construct(self, latent: ms.Tensor) -> ms.Tensor:
        return self.tae.decode(latent, self.num_frames or latent.shape[2] * self.tae.stretch)


class Reconstruct(nn.Cell):
    """Encode to the mean and decode again, as a compiled graph: (B, 3, T, H, W) -> the same."""

    def __init__(self, tae: TAE) -> None:
        super().__init__()
        self.tae = tae

    def construct(self, video: ms.Tensor) -> ms.Tensor:
        return self.tae.decode(self.tae.encode(video)[0], video.shape[2])
