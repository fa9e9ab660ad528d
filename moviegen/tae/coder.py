"""The encoder and the decoder of the Temporal Autoencoder, level by level (paper 3.1.1)."""

from __future__ import annotations

import itertools

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen.config import TAEConfig
from moviegen.device.video import GroupNorm
from moviegen.tae.layers import (
    Conv2_5D,
    ResnetBlock,
    SpatialAttention,
    SpatialDownsample,
    SpatialUpsample,
    TemporalAttention,
    TemporalDownsample,
    TemporalUpsample,
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
        self.norm_out = GroupNorm(config.num_groups, widths[-1], has_silu=True)
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
        return self.conv_out(self.norm_out(x, num_frames), num_frames)


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
        self.norm_out = GroupNorm(config.num_groups, config.base_channels, has_silu=True)
        self.conv_out = Conv2_5D(config.base_channels, 3, config.is_temporal)

    def construct(self, z: ms.Tensor, num_frames: int) -> ms.Tensor:
        x = self.mid(self.conv_in(z, num_frames), num_frames)
        for level in range(self.num_levels - 1, -1, -1):
            x = self.up[level](x, num_frames)
            num_frames = 2 * num_frames if level and self.is_temporal else num_frames
        return self.conv_out(self.norm_out(x, num_frames), num_frames)
