"""The PyTorch process: `python -m tests.bench.pytorch`, see `serving.serve`. It does what `ours.py` does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import torch

from tests.bench import serving
from tests.parity.comparing import random_weights
from tests.parity.torch_tae import TorchTAE


def random_twin(config: dict[str, Any]) -> TorchTAE:
    twin = TorchTAE(SimpleNamespace(**config))
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    twin.load_state_dict({name: torch.tensor(array) for name, array in random_weights(shapes).items()})
    return twin


def build(
    task: str, config: dict[str, Any], batch: int, size: tuple[int, int, int], channels_last: bool
) -> serving.Work:
    """`encode`, `decode` or `train` (one update) on (batch, 3, *size), in either order of memory."""
    twin = random_twin(config)
    frames, height, width = size
    video = torch.rand(batch, 3, *size) * 2 - 1
    latent = torch.randn(batch, config["latent_channels"], -(-frames // 8), height // 8, width // 8)
    if channels_last:
        twin = twin.to(memory_format=torch.channels_last)
        video, latent = (tensor.to(memory_format=torch.channels_last_3d) for tensor in (video, latent))
    if task == "train":
        return update(twin, video, latent)
    work = (lambda: twin.encode(video)) if task == "encode" else (lambda: twin.decode(latent, frames))
    return torch.inference_mode()(work)


def update(twin: TorchTAE, video: torch.Tensor, noise: torch.Tensor) -> serving.Work:
    """Forward, backward, clipping and AdamW with the same loss and settings as ours."""
    parameters = list(twin.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-15, weight_decay=0.0, fused=True)

    def step():
        optimizer.zero_grad()
        restored, mean, logvar = twin(video, noise)
        kl = 0.5 * (mean * mean + logvar.exp() - 1 - logvar).sum() / (video.shape[0] * video.shape[2])
        ((restored - video).abs().mean() + 1e-6 * kl).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    serving.serve(build)
