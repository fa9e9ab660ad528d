"""The Temporal Autoencoder as a PyTorch user would write it: videos stay (B, C, T, H, W), every layer is PyTorch's own.

Spatial convolutions run on the frames, temporal ones on H and W as one axis: two dimensions both, for which PyTorch has
fast kernels on CPU at any batch size (its `Conv3d` is about twice as slow for single clips). In `channels_last_3d`
memory neither reshaping copies.

Parameters have the names of `moviegen.tae`, but for norms' `weight` and `bias` (there `gamma` and `beta`). Nothing of
moviegen is imported: `moviegen.device` would set an oneDNN variable that PyTorch reads as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.parity.names import torch_name


class SpatialConv(nn.Conv2d):
    """A convolution over every frame, which keeps H and W, or halves them (padded right and bottom only)."""

    def __init__(self, in_channels, out_channels, kernel=3, stride=1):
        super().__init__(in_channels, out_channels, kernel, stride, padding=0 if stride == 2 else kernel // 2)

    def forward(self, x):
        frames = x.transpose(1, 2).flatten(0, 1)
        frames = super().forward(F.pad(frames, (0, 1, 0, 1)) if self.stride == (2, 2) else frames)
        return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class TemporalConv(nn.Conv2d):
    """A convolution over time, with H and W as one axis; the border frames are repeated, or black (`zeros`)."""

    def __init__(self, channels, kernel=3, stride=1, padding="replicate"):
        super().__init__(channels, channels, (kernel, 1), (stride, 1))
        self.border = {"replicate": "replicate", "zeros": "constant"}[padding]

    def forward(self, x):
        rows = x.flatten(3)
        if self.kernel_size[0] > 1:
            rows = F.pad(rows, (0, 0, 1, 1), mode=self.border)
        return super().forward(rows).unflatten(3, x.shape[3:])


class Conv(nn.Module):
    def __init__(self, in_channels, out_channels, kernel=3):
        super().__init__()
        self.conv_spat = SpatialConv(in_channels, out_channels, kernel)
        self.conv_temp = TemporalConv(out_channels, kernel)

    def forward(self, x):
        return self.conv_temp(self.conv_spat(x))


class Sampling(nn.Module):
    """One of the four resamplings: a convolution under the name `conv`, after what `prepare` does."""

    def __init__(self, conv, prepare=lambda x: x):
        super().__init__()
        self.conv, self.prepare = conv, prepare

    def forward(self, x):
        return self.conv(self.prepare(x))


def downsamplings(channels):
    spatial, temporal = SpatialConv(channels, channels, stride=2), TemporalConv(channels, stride=2)
    return {"downsample_spat": Sampling(spatial), "downsample_temp": Sampling(temporal)}


def upsamplings(channels, padding):
    spatial = Sampling(SpatialConv(channels, channels), lambda x: F.interpolate(x, scale_factor=(1, 2, 2)))
    temporal = Sampling(TemporalConv(channels, padding=padding), lambda x: x.repeat_interleave(2, 2))
    return {"upsample_spat": spatial, "upsample_temp": temporal}


def norm(channels, config):
    return nn.GroupNorm(config.num_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels, out_channels, config):
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels, config), Conv(in_channels, out_channels)
        self.norm2, self.conv2 = norm(out_channels, config), Conv(out_channels, out_channels)
        self.nin_shortcut = Conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x):
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class SpatialAttention(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.norm = norm(channels, config)
        self.q, self.k, self.v, self.proj_out = (SpatialConv(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        normed = self.norm(x)
        q, k, v = (self.tokens(conv(normed)) for conv in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).unflatten(3, x.shape[3:]).transpose(1, 2)
        return x + self.proj_out(mixed)

    def tokens(self, x):
        return x.flatten(3).permute(0, 2, 3, 1)  # B, T, H*W, C


class TemporalAttention(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.norm = norm(channels, config)
        self.to_q, self.to_k, self.to_v, self.proj_out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x):
        tokens = self.norm(x).permute(0, 3, 4, 2, 1)  # B, H, W, T, C
        mixed = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.proj_out(mixed).permute(0, 4, 3, 1, 2)


class Mid(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, config)
        self.attn_1 = nn.Sequential(SpatialAttention(channels, config), TemporalAttention(channels, config))
        self.block_2 = ResnetBlock(channels, channels, config)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    def __init__(self, in_channels, out_channels, count, config, samplings):
        super().__init__()
        widths = [in_channels] + [out_channels] * count
        self.block = nn.Sequential(*(ResnetBlock(i, o, config) for i, o in itertools.pairwise(widths)))
        self.samplings = tuple(samplings)
        for name, sampling in samplings.items():
            self.add_module(name, sampling)

    def forward(self, x):
        x = self.block(x)
        for name in self.samplings:
            x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        self.conv_in = Conv(3, config.base_channels)
        levels = zip([config.base_channels, *widths], widths, [*map(downsamplings, widths[:-1]), {}], strict=False)
        self.down = nn.Sequential(*(Level(i, o, config.num_res_blocks, config, down) for i, o, down in levels))
        self.mid = Mid(widths[-1], config)
        self.norm_out = norm(widths[-1], config)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels)

    def forward(self, x):
        return self.conv_out(F.silu(self.norm_out(self.mid(self.down(self.conv_in(x))))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        self.conv_in = Conv(config.latent_channels, widths[-1])
        self.mid = Mid(widths[-1], config)
        ups = [{}, *(upsamplings(width, config.temporal_upsample_padding) for width in widths[1:])]
        levels = zip([*widths[1:], widths[-1]], widths, ups, strict=True)
        self.up = nn.ModuleList(Level(i, o, config.num_res_blocks + 1, config, up) for i, o, up in levels)
        self.norm_out = norm(config.base_channels, config)
        self.conv_out = Conv(config.base_channels, 3)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class TorchTAE(nn.Module):
    """Encodes and decodes (B, 3, T, H, W) videos.

    Args:
        config: anything with the attributes of `moviegen.config.TAEConfig`; `is_temporal` is taken for granted.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.encoder(video).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, latent: torch.Tensor, num_frames: int) -> torch.Tensor:
        return self.decoder(latent)[:, :, :num_frames]

    def forward(self, video: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, logvar = self.encode(video)
        return self.decode(mean + torch.exp(0.5 * logvar) * noise, video.shape[2]), mean, logvar

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the weights of a `moviegen.tae.TAE`; kernels over time have their axes of length 1 elsewhere there."""
        shapes = {name: parameter.shape for name, parameter in self.named_parameters()}
        named = {torch_name(name): torch.tensor(array) for name, array in arrays.items()}
        self.load_state_dict({name: array.reshape(shapes[name]) for name, array in named.items()})
