"""The memory of one training step, in bytes: of a card's graph, compiled here, or of this machine's process.

    python -m tests.plan.steps '{"network": "dit", "form": "card", ...}'

`card`: MindSpore's passes over the graph run as they do for a card. Then the CPU has no kernel for FlashAttention in
bfloat16, and compilation ends with an error or takes long to find others; the graph has been written by then, and its
tensors are counted. What the ranks of a job say to each other is replaced by operators of the same shapes. `cpu`: what
the process grows by when steps run that were compiled before.
"""
# ruff: noqa: I001, E402

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

CASE = json.loads(sys.argv[1])
IS_CARD, FOLDER = CASE["form"] == "card", tempfile.TemporaryDirectory()
LAST_PASS = "hwopt_cpu_custom_optimization_after_graph"  # what is done for any device is done before it
if IS_CARD:
    os.environ |= {
        "MS_DEV_SAVE_GRAPHS": "2", "MS_DEV_SAVE_GRAPHS_PATH": FOLDER.name, "MS_DEV_DUMP_IR_PASSES": LAST_PASS,
        "MOVIEGEN_OPERATORS": "mindspore",
    }  # fmt: skip

from moviegen import device

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from moviegen.config import DiTConfig, Optimizer, TAEConfig, TAELoss, latent_size
from moviegen.device import attention, collectives, kernels, precision, updates, video
from moviegen.device.world import World
from moviegen.dit.values import Drawn, declared
from moviegen.flow.path import FlowMatchingLoss
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.runs.machine import memory_growth
from moviegen.tae.losses import TAETrainingLoss
from moviegen.tae.lpips import LPIPS
from moviegen.tae.model import TAE
from moviegen.train.optim import AdamW
from moviegen.train.step import Step
from moviegen.device.graph_memory import peak

CARDS, SHARDS, SAMPLES = CASE.get("cards", 1), CASE.get("shards", 1), CASE.get("samples", 1)


@ops.constexpr
def repeated(length, times):
    return ms.Tensor(np.tile(np.arange(length, dtype=np.int32), times))


class AllGather(nn.Cell):
    def __init__(self, group=None):
        super().__init__()
        self.ranks, self.gather = SHARDS if group else CARDS, ops.Gather()

    def recompute(self):
        self.gather.recompute()  # as of the one operator that this stands for

    def construct(self, x):
        return self.gather(x, repeated(x.shape[0], self.ranks), 0)


class AllReduce(nn.Cell):
    def construct(self, x):
        return x + x


class ReduceScatter(nn.Cell):
    def construct(self, x):
        return ops.slice(x, (0,), (x.shape[0] // CARDS,))


class AlltoAll(nn.Cell):
    def __init__(self, ranks, split, join, group):
        super().__init__()
        self.ranks, self.split, self.join = ranks, split, join

    def construct(self, x):
        shape = list(x.shape)
        shape[self.split] //= self.ranks
        shape[self.join] *= self.ranks
        return ops.relu(x.reshape(tuple(shape)))


def as_on_a_card():
    """Cells take a card's form when they are made; collectives are stand-ins."""
    for module in (device, attention, collectives, kernels, precision, updates, video):
        module.target = lambda: "Ascend"
    collectives.named = lambda group: "group"
    ops.AllGather, ops.AllReduce, ops.ReduceScatter, ops.AlltoAll = AllGather, AllReduce, ReduceScatter, AlltoAll


def transformer():
    """A step on one sample, and its inputs."""
    config, settings = DiTConfig.model_validate(CASE["config"]), CASE["settings"]
    dit = declared(
        config, sequence_of(Mesh(0, CARDS, SHARDS), config.num_heads), ms.bfloat16 if IS_CARD else ms.float32
    )
    zero = Zero(dit, settings["zero_stage"], World(0, CARDS), Drawn(dit, 0))
    dit.recompute_blocks(settings["recompute"], settings["keep_attention"])
    network, rng = dit.by_tokens(), np.random.default_rng(0)
    latents = rng.standard_normal((2, SAMPLES, 16, *latent_size(*CASE["clip"])), np.float32)
    texts = [rng.standard_normal((SAMPLES, n, width), np.float32) for n, width in zip(
        CASE["text_lengths"], config.embedding_widths, strict=True)]  # fmt: skip
    mask = np.ones((SAMPLES, sum(CASE["text_lengths"])), bool)
    tokens, times = [network.tokens(latent) for latent in latents], np.full(SAMPLES, 0.5, np.float32)
    return FlowMatchingLoss(network), zero, [*tokens, times, network.places(latents[0].shape), *texts, mask]


def autoencoder():
    """A step on one clip, and its inputs."""
    config, rng = TAEConfig.model_validate(CASE["config"]), np.random.default_rng(0)
    lpips = LPIPS() if CASE.get("perceptual") else None
    tae = TAE(config)
    tae.compute_in(ms.bfloat16 if CASE.get("dtype") == "bfloat16" else ms.float32)
    tae.recompute_blocks(CASE.get("recompute", 0))
    loss = TAETrainingLoss(tae, TAELoss(), lpips, has_outlier_penalty=False)
    noise = rng.standard_normal((SAMPLES, config.latent_channels, *latent_size(*CASE["clip"])), np.float32)
    return loss, Zero(loss.tae, 0, World()), [rng.uniform(-1, 1, (SAMPLES, 3, *CASE["clip"])).astype(np.float32), noise]


def counted(step, batch):
    """Bytes of the compiled graph's tensors at its fullest moment; weights and inputs are none of them."""
    threading.Thread(target=tell_as_soon_as_written, daemon=True).start()
    try:
        step.compile(batch)
    except Exception as error:  # of one type or another, by the operator that comes first
        if "SetOperatorInfo" not in str(error):
            raise
    return peak(written()[0])


def written():
    return sorted(Path(FOLDER.name).glob(f"**/{LAST_PASS}_*.ir"))


def tell_as_soon_as_written():
    """Ends the process: what comes after the last pass is looking for a CPU's kernels, which is not asked for."""
    size = -1
    while not (found := written()) or found[0].stat().st_size != size or size == 0:
        size = found[0].stat().st_size if found else -1
        time.sleep(1)
    print(json.dumps({"bytes": peak(found[0])}), flush=True)
    FOLDER.cleanup()
    os._exit(0)


def grown(step, batch, micro_batches):
    """Bytes that the process grows by while it computes; what compiling takes is not among them."""
    step.compile(batch)
    return memory_growth(lambda: step([batch] * micro_batches, 1e-4))


def main():
    device.start(0)
    if IS_CARD:
        as_on_a_card()
    is_tae, micro_batches = CASE["network"] == "tae", CASE.get("micro_batches", 1)
    loss, zero, arrays = autoencoder() if is_tae else transformer()
    moment, gradient = (getattr(ms, CASE.get(name, "float32")) for name in ("moment_dtype", "gradient_dtype"))
    optimizer = AdamW(zero.masters, Optimizer(), zero.shapes, moment)
    step = Step(loss, zero, optimizer, micro_batches, 1.0, has_terms=is_tae, gradient_dtype=gradient)
    batch = tuple(map(ms.Tensor, arrays))
    print(json.dumps({"bytes": counted(step, batch) if IS_CARD else grown(step, batch, micro_batches)}))


if __name__ == "__main__":
    main()
