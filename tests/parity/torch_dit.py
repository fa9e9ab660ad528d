"""The transformer in PyTorch, as a PyTorch user would write it; parameters have our names."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PATCH = 2


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (self._heads(y) for y in (self.q_proj(x), self.k_proj(context), self.v_proj(context)))
        mask = None if mask is None else mask[:, None, None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class SwiGLU(nn.Module):
    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, ffn_width, bias=False), nn.Linear(width, ffn_width, bias=False)
        self.down_proj = nn.Linear(ffn_width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, width))
        self.input_layernorm = Norm(width, config.norm_eps)
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads)
        self.post_attention_layernorm = Norm(width, config.norm_eps)
        self.mlp = SwiGLU(width, config.ffn_width)

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (time + self.scale_shift_table).chunk(6, 1)
        normed = self.input_layernorm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attn(normed, normed)
        x = x + self.cross_attn(x, text, mask)
        return x + gate2 * self.mlp(self.post_attention_layernorm(x) * (1 + scale2) + shift2)


class FinalLayer(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, config.width))
        self.input_layernorm = Norm(config.width, config.norm_eps)
        self.proj = nn.Linear(config.width, config.latent_channels * PATCH**2, bias=False)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = (time[:, None] + self.scale_shift_table).chunk(2, 1)
        return self.proj(self.input_layernorm(x) * (1 + scale) + shift)


class TextProjector(nn.Module):
    """Of the encoders that are there: those whose embeddings have a width."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        widths = dict(zip(("ul2", "metaclip", "byt5"), config.text_widths, strict=True))
        self.encoders = [name for name, width in widths.items() if width]
        for name in self.encoders:
            self.add_module(f"{name}_linear", nn.Linear(widths[name], config.width, bias=False))
            self.add_module(f"{name}_layernorm", Norm(config.width, config.norm_eps))

    def forward(self, *texts: torch.Tensor) -> torch.Tensor:
        parts = zip(self.encoders, texts, strict=True)
        return torch.cat([getattr(self, f"{n}_layernorm")(getattr(self, f"{n}_linear")(text)) for n, text in parts], 1)


class TorchDiT(nn.Module):
    """The twin of `moviegen.dit.DiT`."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, width = config, config.width
        patch = config.latent_channels * PATCH**2
        self.latent_embedder = nn.ModuleDict({"proj": nn.Linear(patch, width, bias=False)})
        half = config.frequency_width // 2
        # as released: in float32, whatever the weights are, and with NumPy's exp, as PyTorch's rounds otherwise
        self.frequencies = torch.tensor(np.exp(-math.log(10000) * np.arange(half, dtype=np.float32) / half))
        mlp = (nn.Linear(config.frequency_width, width, bias=False), nn.SiLU(), nn.Linear(width, width, bias=False))
        self.timestep_embedder = nn.ModuleDict({"mlp": nn.Sequential(*mlp)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width, bias=False))
        self.text_projector = TextProjector(config)
        for axis, length in zip("thw", config.max_size, strict=True):
            table = nn.ParameterDict({"embedding_table": nn.Parameter(torch.zeros(length, width))})
            self.add_module(f"pos_embedding_table_{axis}", table)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.final_layer = FinalLayer(config)

    def forward(
        self, latent: torch.Tensor, timestep: torch.Tensor, *texts: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `moviegen.dit.DiT.construct`."""
        batch, channels, frames, height, width = latent.shape
        rows, columns = height // PATCH, width // PATCH
        x = latent.view(batch, channels, frames, rows, PATCH, columns, PATCH).permute(0, 2, 3, 5, 1, 4, 6)
        x = self.latent_embedder["proj"](x.reshape(batch, frames * rows * columns, -1))
        positions = (
            self.pos_embedding_table_t["embedding_table"][:frames, None, None]
            + self.pos_embedding_table_h["embedding_table"][None, :rows, None]
            + self.pos_embedding_table_w["embedding_table"][None, None, :columns]
        ).reshape(1, x.shape[1], -1)
        angles = timestep[:, None] * self.frequencies
        time = self.timestep_embedder["mlp"](torch.cat((angles.cos(), angles.sin()), 1).to(x.dtype))
        modulation, text = self.adaLN_modulation(time).view(batch, 6, -1), self.text_projector(*texts)
        for layer in self.layers:
            x = layer(x + positions, modulation, text, mask)
        x = self.final_layer(x, time).view(batch, frames, rows, columns, PATCH, PATCH, channels)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(latent.shape)
