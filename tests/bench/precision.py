"""What bfloat16 loses of velocities and gradients, by what is kept in float32: `python -m tests.bench.precision`.

Every tensor that a card makes is rounded to bfloat16 where it is made, forward and backward; arithmetic is float32, so
any CPU can tell. The time-step is embedded in float32 in all rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import config, device

# isort: split
import mindspore as ms
from mindspore import nn, ops

from moviegen.device.kernels import RMSNorm
from moviegen.dit.inference import load_described
from moviegen.dit.layers import Linear
from moviegen.dit.model import DiT
from moviegen.flow.path import FlowMatchingLoss

LATENT = (2, 6, 10)  # T', H', W'
TEXT = 16  # tokens
RANDOM_LAYERS = 24
WAYS = {  # which tensors are rounded: sums of residuals, modulation and gates
    "nothing": (True, True),
    "modulation and gates": (True, False),
    "sums of residuals, as it is": (False, True),
    "both": (False, False),
}


class Round(nn.Cell):
    """To bfloat16 and back, and the gradient too."""

    def __init__(self) -> None:
        super().__init__()
        self.cast = ops.Cast()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.cast(self.cast(x, ms.bfloat16), ms.float32)

    def bprop(self, x: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        return (self.cast(self.cast(dout, ms.bfloat16), ms.float32),)


class RoundedResult(nn.Cell):
    """A product, or attention: what it makes is rounded, and of a product the weight."""

    def __init__(self, inner: nn.Cell, is_product: bool) -> None:
        super().__init__()
        self.inner, self.is_product, self.round = inner, is_product, Round()

    def construct(self, x: ms.Tensor, y: ms.Tensor, *rest: ms.Tensor | None) -> ms.Tensor:
        if self.is_product:
            return self.round(self.inner(self.round(x), self.round(y)))
        return self.round(self.inner(x, y, *rest))


class RoundedSum(nn.Cell):
    """A modulated norm or a gated sum of three: what it reads and makes is rounded where it is said."""

    def __init__(self, inner: nn.Cell, first: bool, modulation: bool, result: bool) -> None:
        super().__init__()
        self.inner, self.first, self.modulation, self.result = inner, first, modulation, result
        self.is_norm, self.round = isinstance(inner, RMSNorm), Round()

    def construct(self, x: ms.Tensor, gate: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        x = self.round(x) if self.first else x
        gate = self.round(gate) if self.modulation else gate
        y = self.round(y) if self.modulation and self.is_norm else y
        result = self.inner(x, gate, y)
        return self.round(result) if self.result else result


def as_on_a_card(dit: DiT, sums: bool, modulation: bool) -> DiT:
    """The transformer with its tensors rounded; sums of residuals and modulation only where that is asked for."""
    for name, cell in list(dit.cells_and_names()):
        is_float32 = name.startswith("timestep_embedder") or (name.startswith("adaLN") and not modulation)
        if isinstance(cell, Linear) and not is_float32:
            cell.product = RoundedResult(cell.product, is_product=True)
    for block in dit.layers:
        block.input_layernorm = RoundedSum(block.input_layernorm, True, modulation, True)
        block.post_attention_layernorm = RoundedSum(block.post_attention_layernorm, True, modulation, True)
        block.gated_sum = RoundedSum(block.gated_sum, sums, modulation, sums)
        block.self_attn.attention = RoundedResult(block.self_attn.attention, is_product=False)
        block.cross_attn.attention = RoundedResult(block.cross_attn.attention, is_product=False)
    dit.final_layer.input_layernorm = RoundedSum(dit.final_layer.input_layernorm, True, modulation, True)
    return dit


def shipped() -> DiT:
    """The transformer whose weights come with the repository."""
    return load_described(config.project_root() / "params" / "weights" / "transformer.safetensors")


def random() -> DiT:
    """One of its width and more layers; no weight is zero."""
    ms.set_seed(0)
    np.random.seed(0)
    dit = DiT(shipped().config.model_copy(update={"num_layers": RANDOM_LAYERS}))
    rng = np.random.default_rng(1)
    for name, weight in dit.parameters_and_names():
        if name == "final_layer.proj.weight" or "scale_shift" in name:
            weight.set_data(ms.Tensor(rng.standard_normal(weight.shape, np.float32) * weight.shape[-1] ** -0.5))
    return dit


def results(dit: DiT) -> tuple[np.ndarray, np.ndarray]:
    """Velocities of a batch, and all gradients of the training loss."""
    rng, network, widths = np.random.default_rng(0), dit.by_tokens(), dit.config.embedding_widths
    clean, noise = rng.standard_normal((2, 2, dit.config.latent_channels, *LATENT), np.float32)
    times = np.array([0.3, 0.7], np.float32)
    texts = [rng.standard_normal((2, TEXT, width), np.float32) for width in widths]
    rest = [network.places(clean.shape), *texts, np.ones((2, TEXT * len(widths)), bool)]
    velocity = network(*map(ms.Tensor, (network.tokens(noise), 1000 * times, *rest))).asnumpy()
    backward = ops.value_and_grad(FlowMatchingLoss(network), None, list(dit.trainable_params()))
    _, gradients = backward(*map(ms.Tensor, (network.tokens(clean), network.tokens(noise), times, *rest)))
    return velocity, np.concatenate([gradient.asnumpy().ravel() for gradient in gradients])


def measure(repetitions: int) -> list[dict[str, Any]]:
    """Errors of each network in each way; nothing is timed, so nothing is repeated."""
    command = (sys.executable, "-m", "tests.bench.precision")
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])


def errors() -> list[dict[str, Any]]:
    """The rows of `measure`, by this process."""
    device.start(0)
    rows = []
    for name, network in {"shipped": shipped, f"{RANDOM_LAYERS} random layers": random}.items():
        exact = results(network())
        for way, rounded in tqdm(WAYS.items(), desc=name, unit="way"):
            velocity, gradient = (
                float(100 * np.linalg.norm(one - whole) / np.linalg.norm(whole))
                for one, whole in zip(results(as_on_a_card(network(), *rounded)), exact, strict=True)
            )
            rows.append({"network": name, "float32": way, "velocity_%": velocity, "gradient_%": gradient})
    return rows


if __name__ == "__main__":
    print(json.dumps(errors()))
