"""The transformer's PyTorch process: `python -m tests.bench.dit_pytorch`; it does what `dit_ours.py` does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import torch

from tests.bench import serving
from tests.parity.comparing import random_weights
from tests.parity.torch_dit import TorchDiT


def build(task: str, dtype: str = "float32", **arguments: Any) -> serving.Work:
    """`forward` or `train` (one update) of a transformer, or `matmul`: a product of two large squares."""
    if task == "matmul":
        return product(getattr(torch, dtype), **arguments)
    return transformer(task, dtype, **arguments)


def product(dtype: torch.dtype, size: int) -> serving.Work:
    """What the machine's peak is measured by."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def transformer(
    task: str, dtype: str, config: dict[str, Any], latent: list[int], lengths: list[int], is_compiled: bool = False
) -> serving.Work:
    """Eager or by `torch.compile`, in float32 or under autocast to bfloat16."""
    twin, batch = TorchDiT(SimpleNamespace(**config)), latent[0]
    shapes = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    twin.load_state_dict({name: torch.tensor(array) for name, array in random_weights(shapes).items()})
    texts = [torch.randn(batch, length, width) for length, width in zip(lengths, config["text_widths"], strict=True)]
    mask, x = torch.ones(batch, sum(lengths), dtype=torch.bool), torch.randn(latent)
    network = torch.compile(twin) if is_compiled else twin

    def velocity(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return network(x, timestep, *texts, mask=mask)

    if task == "forward":
        return torch.inference_mode()(lambda: velocity(x, torch.full((batch,), 500.0)))
    return update(list(twin.parameters()), velocity, x)


def update(parameters: list[torch.nn.Parameter], velocity: Any, x: torch.Tensor) -> serving.Work:
    """Forward, backward, clipping and AdamW with the same loss and settings as ours."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-15, weight_decay=0.0, fused=True)
    noise, t = x.flip(0), torch.full((len(x), 1, 1, 1, 1), 0.5)

    def step() -> None:
        optimizer.zero_grad()
        found = velocity(t * x + (1 - (1 - 1e-5) * t) * noise, 1000 * (1 - t.flatten()))
        ((found - (x - (1 - 1e-5) * noise)) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    serving.serve(build)
