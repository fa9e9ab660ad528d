"""The transformer's PyTorch process: `python -m tests.bench.dit_pytorch`; it does what `dit_ours.py` does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import torch

from tests.bench import workers
from tests.parity.comparing import random_weights
from tests.parity.torch_dit import TorchDiT


def build(task: str, config: dict[str, Any], latent: list[int], lengths: list[int]) -> workers.Work:
    """`forward` or `train` (one update)."""
    twin, batch = TorchDiT(SimpleNamespace(**config)), latent[0]
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    twin.load_state_dict({name: torch.tensor(array) for name, array in random_weights(shapes).items()})
    texts = [torch.randn(batch, length, width) for length, width in zip(lengths, config["text_widths"], strict=True)]
    mask, x = torch.ones(batch, sum(lengths), dtype=torch.bool), torch.randn(latent)
    if task == "forward":
        return torch.inference_mode()(lambda: twin(x, torch.full((batch,), 500.0), *texts, mask=mask))
    parameters = list(twin.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-15, weight_decay=0.0, fused=True)
    noise, t = x.flip(0), torch.full((batch, 1, 1, 1, 1), 0.5)

    def step() -> None:
        optimizer.zero_grad()
        velocity = twin(t * x + (1 - (1 - 1e-5) * t) * noise, 1000 * (1 - t.flatten()), *texts, mask=mask)
        ((velocity - (x - (1 - 1e-5) * noise)) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    workers.serve(build)
