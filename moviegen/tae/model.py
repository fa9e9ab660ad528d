"""The Temporal Autoencoder: video to latent and back, 8x smaller in time, height and width (paper 3.1.1)."""

from __future__ import annotations

import itertools

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen.config import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, TAEConfig
from moviegen.device.kernels import GroupNorm
from moviegen.tae.layers import (
    Conv2_5D,
    ResnetBlock,
    SpatialAttention,
    SpatialDownsample,
    SpatialUpsample,
    TemporalAttention,
    TemporalDownsample,
    TemporalUpsample,
    fold_time,
    unfold_time,
)

INITIAL_LOGVAR = -6.0


class Mid(nn.Cell):
    """Residual block, spatial then temporal attention, residual block."""

    def __init__(self, channels: int, config: TAEConfig) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, config.num_groups, config.is_temporal)
        attentions = [SpatialAttention(channels, config.num_groups)]
        if config.is_temporal:
            attentions.append(TemporalAttention(channels, config.num_groups))
        self.attn_1 = nn.CellList(attentions)
        self.block_2 = ResnetBlock(channels, channels, config.num_groups, config.is_temporal)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        x = self.block_1(x, num_frames)
        for attention in self.attn_1:
            x = attention(x, num_frames)
        return self.block_2(x, num_frames)


def residual_blocks(in_channels: int, out_channels: int, count: int, config: TAEConfig) -> nn.CellList:
    """`count` blocks, the first of which changes the width."""
    widths = [in_channels] + [out_channels] * count
    return nn.CellList(
        [ResnetBlock(i, o, config.num_groups, config.is_temporal) for i, o in itertools.pairwise(widths)]
    )


class DownLevel(nn.Cell):
    """One resolution of the encoder; all but the last halve H, W and T."""

    def __init__(self, in_channels: int, out_channels: int, config: TAEConfig, is_last: bool) -> None:
        super().__init__()
        self.block = residual_blocks(in_channels, out_channels, config.num_res_blocks, config)
        self.has_spatial = not is_last
        self.has_temporal = not is_last and config.is_temporal
        if self.has_spatial:
            self.downsample_spat = SpatialDownsample(out_channels)
        if self.has_temporal:
            self.downsample_temp = TemporalDownsample(out_channels)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        for block in self.block:
            x = block(x, num_frames)
        if self.has_spatial:
            x = self.downsample_spat(x)
        return self.downsample_temp(x, num_frames) if self.has_temporal else x


class UpLevel(nn.Cell):
    """One resolution of the decoder; all but the last double H, W and T."""

    def __init__(self, in_channels: int, out_channels: int, config: TAEConfig, is_last: bool) -> None:
        super().__init__()
        self.block = residual_blocks(in_channels, out_channels, config.num_res_blocks + 1, config)
        self.has_spatial = not is_last
        self.has_temporal = not is_last and config.is_temporal
        if self.has_spatial:
            self.upsample_spat = SpatialUpsample(out_channels)
        if self.has_temporal:
            self.upsample_temp = TemporalUpsample(out_channels, config.temporal_upsample_padding)

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        for block in self.block:
            x = block(x, num_frames)
        if self.has_spatial:
            x = self.upsample_spat(x)
        return self.upsample_temp(x, num_frames) if self.has_temporal else x


class Encoder(nn.Cell):
    """(B*T, 3, H, W) frames -> (B*T', 2*C, H', W') mean and log-variance."""

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        self.conv_in = Conv2_5D(3, config.base_channels, config.is_temporal)
        self.down = nn.CellList(
            [
                DownLevel(i, o, config, is_last=level == len(widths) - 1)
                for level, (i, o) in enumerate(zip([config.base_channels, *widths], widths, strict=False))
            ]
        )
        self.mid = Mid(widths[-1], config)
        self.norm_out = GroupNorm(config.num_groups, widths[-1])
        self.conv_out = Conv2_5D(widths[-1], 2 * config.latent_channels, config.is_temporal)
        # A narrow posterior at the start: its noise would otherwise drown the mean for the first hundreds of steps.
        moments = np.repeat(np.array([0, INITIAL_LOGVAR], np.float32), config.latent_channels)
        self.conv_out.conv_spat.bias.set_data(ms.Tensor(moments))

    def construct(self, x: ms.Tensor, num_frames: int) -> ms.Tensor:
        x = self.conv_in(x, num_frames)
        for level in self.down:
            x = level(x, num_frames)
            num_frames = (num_frames + 1) // 2 if level.has_temporal else num_frames
        x = self.mid(x, num_frames)
        return self.conv_out(ops.silu(self.norm_out(x, num_frames)), num_frames)


class Decoder(nn.Cell):
    """(B*T', C, H', W') latents -> (B*8T', 3, H, W) frames."""

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        self.num_levels, self.is_temporal = len(widths), config.is_temporal
        self.conv_in = Conv2_5D(config.latent_channels, widths[-1], config.is_temporal)
        self.mid = Mid(widths[-1], config)
        above = [*widths[1:], widths[-1]]
        self.up = nn.CellList(
            [UpLevel(i, o, config, is_last=level == 0) for level, (i, o) in enumerate(zip(above, widths, strict=True))]
        )
        self.norm_out = GroupNorm(config.num_groups, config.base_channels)
        self.conv_out = Conv2_5D(config.base_channels, 3, config.is_temporal)

    def construct(self, z: ms.Tensor, num_frames: int) -> ms.Tensor:
        x = self.mid(self.conv_in(z, num_frames), num_frames)
        for level in range(self.num_levels - 1, -1, -1):
            x = self.up[level](x, num_frames)
            num_frames = 2 * num_frames if level and self.is_temporal else num_frames
        return self.conv_out(ops.silu(self.norm_out(x, num_frames)), num_frames)


class TAE(nn.Cell):
    """Encodes and decodes images (T = 1) and videos of any length; H and W must be divisible by 8.

    With `is_temporal` off in its config this is the image autoencoder that a TAE inflates: the same layers under the
    same names, without the temporal ones; it treats a video's frames one by one (T' = T).
    """

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        self.config = config
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
        moments = self.encoder(fold_time(video.swapaxes(1, 2)), num_frames)
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
        frames = self.decoder(fold_time(latent.swapaxes(1, 2)), length)
        return unfold_time(frames, length * self.stretch)[:, :num_frames].swapaxes(1, 2)

    def construct(self, video: ms.Tensor, noise: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        """Reconstruction, mean and log-variance; `noise` (standard normal, latent-shaped) samples the latent."""
        mean, logvar = self.encode(video)
        return self.decode(mean + ops.exp(0.5 * logvar) * noise, video.shape[2]), mean, logvar

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
    """The decoder as a compiled graph: (B, C, T', H', W') -> (B, 3, num_frames, H, W), see `TAE.decode`."""

    def __init__(self, tae: TAE, num_frames: int) -> None:
        super().__init__()
        self.tae, self.num_frames = tae, num_frames

    def construct(self, latent: ms.Tensor) -> ms.Tensor:
        return self.tae.decode(latent, self.num_frames)


class Reconstruct(nn.Cell):
    """Encode to the mean and decode again, as a compiled graph: (B, 3, T, H, W) -> the same."""

    def __init__(self, tae: TAE) -> None:
        super().__init__()
        self.tae = tae

    def construct(self, video: ms.Tensor) -> ms.Tensor:
        return self.tae.decode(self.tae.encode(video)[0], video.shape[2])
