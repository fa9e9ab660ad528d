"""The transformer's MindSpore process: `python -m tests.bench.dit_ours`, see `serving.serve`."""

from __future__ import annotations

from functools import partial
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import device
from moviegen.config import DiTConfig, Optimizer
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.flow import path as flow
from moviegen.flow import sampler, schedule
from moviegen.parallel.zero import Zero
from moviegen.runs.weights import assign
from moviegen.train.optim import AdamW
from moviegen.train.step import Step
from tests.bench import serving
from tests.bench.ours import finish
from tests.parity.comparing import random_weights

RNG = np.random.default_rng(0)
EULER_STEPS = 10


def random_dit(config: dict[str, Any], dtype: str) -> DiT:
    """A transformer none of whose weights is trivial."""
    dit = DiT(DiTConfig.model_validate(config), dtype=device.compute_dtype(dtype))
    parameters = dict(dit.parameters_and_names())
    assign(parameters, random_weights({name: tuple(p.shape) for name, p in parameters.items()}), "random")
    return dit


def build(
    task: str, config: dict[str, Any], latent: list[int], lengths: list[int], dtype: str = "float32"
) -> serving.Work:
    """`forward`, `train` (one update), `euler` (the sampler with EULER_STEPS guided steps), or `bare` (its network).

    The bare calls are as many, of the transformer alone, on tensors that are there already: twice the batch, which
    guidance takes, and one wait at the end.
    """
    dit, batch = random_dit(config, dtype), latent[0]
    texts = [RNG.standard_normal((batch, length, width), np.float32) for length, width in zip(
        lengths, config["text_widths"], strict=True)]  # fmt: skip
    masks = np.ones((batch, sum(lengths)), bool)
    x = RNG.standard_normal(latent, np.float32)
    tensors = [ms.Tensor(array) for array in (*texts, masks)]
    if task == "forward":
        forward = partial(dit, ms.Tensor(x), ms.Tensor(np.full(batch, 500.0, np.float32)), *tensors)
        return lambda: finish(forward())
    if task == "train":
        return update(
            dit, [ms.Tensor(x), ms.Tensor(x[::-1].copy()), ms.Tensor(np.full(batch, 0.5, np.float32)), *tensors]
        )
    both = tuple(np.concatenate((array, array)) for array in (*texts, masks))
    if task == "bare":
        t = np.full(2 * batch, 500.0, np.float32)
        return bare_calls(dit, [ms.Tensor(array) for array in (np.concatenate((x, x)), t, *both)])
    field = sampler.GuidedVelocity(sampler.VelocityCell(dit), 7.5, both)
    times = schedule.get("linear", EULER_STEPS)
    return lambda: sampler.euler(x, field, times)


def bare_calls(dit: DiT, tensors: list[ms.Tensor]) -> serving.Work:
    """EULER_STEPS calls of the network and nothing else."""

    def calls() -> None:
        for _ in range(EULER_STEPS):
            velocity = dit(*tensors)
        finish(velocity)

    return calls


def update(dit: DiT, batch: list[ms.Tensor]) -> serving.Work:
    """Forward, backward, clipping and AdamW as `train.loop` calls them."""
    zero = Zero(dit, 0, World())
    optimizer = AdamW(zero.masters, Optimizer(), zero.shapes)
    step = Step(flow.FlowMatchingLoss(dit), zero, optimizer, micro_batches=1, clip_norm=1.0, has_terms=False)
    return lambda: step([batch], 1e-4)


if __name__ == "__main__":
    device.start(0)
    serving.serve(build)
