"""The MindSpore process: `python -m tests.bench.ours`, see `serving.serve`."""

from __future__ import annotations

from functools import partial
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import device
from moviegen.config import Optimizer, TAEConfig, TAELoss, latent_size
from moviegen.device.world import World
from moviegen.parallel.zero import Zero
from moviegen.runs.weights import assign
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.model import TAE, Decode, Encode
from moviegen.train.optim import AdamW
from moviegen.train.step import Step
from tests.bench import serving
from tests.parity.comparing import random_weights

RNG = np.random.default_rng(0)


def random_tae(config: dict[str, Any]) -> TAE:
    """A TAE none of whose weights is trivial."""
    tae = TAE(TAEConfig.model_validate(config))
    parameters = dict(tae.parameters_and_names())
    assign(parameters, random_weights({name: tuple(p.shape) for name, p in parameters.items()}), "random")
    return tae


def build(task: str, config: dict[str, Any], batch: int, size: tuple[int, int, int]) -> serving.Work:
    """`encode`, `decode` or `train` (one update) on (batch, 3, *size)."""
    tae = random_tae(config)
    video = ms.Tensor(RNG.uniform(-1, 1, (batch, 3, *size)), ms.float32)
    latent = ms.Tensor(RNG.standard_normal((batch, tae.config.latent_channels, *latent_size(*size))), ms.float32)
    if task == "train":
        return update(tae, video, latent)
    work = partial(Encode(tae), video) if task == "encode" else partial(Decode(tae, size[0]), latent)
    return lambda: finish(work())


def finish(result: Any) -> None:
    """Waits for a graph: its results, however nested, come to the host together."""
    while isinstance(result, tuple):
        result = result[0]
    result.asnumpy()


def update(tae: TAE, video: ms.Tensor, noise: ms.Tensor) -> serving.Work:
    """Forward, backward, clipping and AdamW as `train.loop` calls them."""
    loss = TAETrainingLoss(tae, TAELoss(), lpips=None, has_outlier_penalty=False)
    zero = Zero(loss, 0, World())
    optimizer = AdamW(zero.masters, Optimizer(), zero.shapes)
    step = Step(loss, zero, optimizer, micro_batches=1, clip_norm=1.0, has_terms=True)
    return lambda: step([(video, noise)], 1e-4)


if __name__ == "__main__":
    device.start(0)
    serving.serve(build)
