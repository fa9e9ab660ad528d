"""A worker of test_runtime: the same transformer and batches under several ways to divide them over the ranks.

Rank 0 leaves MindSpore's text of the graphs of an update in <folder>/<name>, for test_traffic_counted.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen import device
from moviegen.config import DiTConfig, Optimizer
from moviegen.device.collectives import barrier, join_world
from moviegen.device.world import World
from moviegen.dit.layers import Linear
from moviegen.dit.model import DiT
from moviegen.flow import path as flow
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.runs.arrays import save_arrays
from moviegen.train.ema import EMA
from moviegen.train.optim import AdamW
from moviegen.train.step import Backward, Gradients, Step

CONFIG = DiTConfig(
    width=16, ffn_width=24, num_heads=4, num_layers=2, max_size=(2, 2, 3), latent_channels=4, text_widths=(6, 5, 4),
    frequency_width=8,
)  # fmt: skip
SHAPES = {"image": (4, 1, 4, 6), "video": (4, 2, 4, 6)}  # 6 and 12 tokens: 6 do not divide by 4
SAMPLES, STEPS = 4, 20
OPTIMIZER, CLIP_NORM = Optimizer(eps=1e-8, weight_decay=0.1), 0.5


def start(dit):
    """Weights that do not depend on how they are divided; nothing is zero."""
    rng = np.random.default_rng(1)
    for _, parameter in sorted(dit.parameters_and_names()):
        noise = 0.3 * rng.standard_normal(parameter.shape)
        parameter.set_data(ms.Tensor(1 + noise if parameter.ndim == 1 else noise, ms.float32))


def batch(medium, step, world, micro=0):
    """This data rank's share of the samples of a micro-batch."""
    rng = np.random.default_rng([step, len(medium), micro])
    shape = SHAPES[medium]
    texts = [
        rng.standard_normal((SAMPLES, length, width))
        for length, width in zip((3, 2, 2), CONFIG.text_widths, strict=True)
    ]
    arrays = [*rng.standard_normal((2, SAMPLES, *shape)), rng.uniform(0.1, 0.9, SAMPLES), *texts]
    masks = rng.random((SAMPLES, 7)) < 0.8
    masks[:, 0] = True
    own = slice(world.rank * SAMPLES // world.size, (world.rank + 1) * SAMPLES // world.size)
    return [ms.Tensor(array[own], ms.float32) for array in arrays] + [ms.Tensor(masks[own])]


def joined(batches):
    """Micro-batches as one."""
    return [ms.Tensor(np.concatenate([one.asnumpy() for one in inputs])) for inputs in zip(*batches, strict=True)]


def parameter_bytes(*cells):
    """Of all that the graphs of a step read and write."""
    parameters = {id(parameter): parameter for cell in cells for parameter in cell.get_parameters()}
    return sum(parameter.nbytes for parameter in parameters.values())


def assert_holds(dit, zero, arrays):
    """The network itself has these weights, or this rank's parts of them."""
    for name, weight in dit.parameters_and_names():
        is_whole = tuple(weight.shape) == zero.shapes[name]
        wanted = arrays[name] if is_whole else zero.part(arrays[name])
        np.testing.assert_array_equal(weight.asnumpy(), wanted, err_msg=name)


def check_average(dit, zero):
    """`swapped` gives the network the averages, then its weights back."""
    weights, ema = zero.arrays(), EMA(zero, 0.5)
    ema.set_arrays({name: array + 1 for name, array in weights.items()})
    with ema.swapped():
        assert_holds(dit, zero, {name: array + 1 for name, array in weights.items()})
    assert_holds(dit, zero, weights)


def check_loading(dit, zero):
    """Whole weights, as a checkpoint has them, become each rank's part."""
    doubled = {name: 2 * array for name, array in zero.arrays().items()}
    zero.set_masters(lambda name: zero.held(doubled[name]))
    assert_holds(dit, zero, doubled)
    for name, array in zero.arrays().items():
        np.testing.assert_array_equal(array, doubled[name], err_msg=name)


class MeanSquare(nn.Cell):
    """Of a linear layer's output; the arithmetic is the input's."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def construct(self, x):
        y = self.linear(x)
        return (y * y).astype(ms.float32).mean()


def check_float16(world):
    """A divided matrix works in its input's type; its gradients are summed in float32: float16 ends at 65504."""
    rng = np.random.default_rng(2)
    weight, x = rng.standard_normal((3, 5), np.float32), rng.standard_normal((4, 5)).astype(np.float16)
    y = x.astype(np.float32) @ weight.T
    gradient = 2 / y.size * y.T @ x.astype(np.float32)
    scale = np.float32(4e4 / np.abs(gradient).max())
    linear = Linear(5, 3)
    linear.weight.set_data(ms.Tensor(weight))
    loss = MeanSquare(linear)
    zero = Zero(loss, 3, world)
    gradients = Gradients(zero)
    backward = Backward(loss, zero, gradients, has_terms=False)
    backward.scale.set_data(ms.Tensor(scale))
    backward(ms.Tensor(x))
    wanted = world.size * scale * gradient
    np.testing.assert_allclose(gradients.sums[0].asnumpy(), zero.part(wanted), atol=4e-3 * np.abs(wanted).max())


def digest(arrays):
    """Of their bits."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def gradients(step, norm):
    """Of the first update, as the first moment tells, whole; then it is as if that had not been."""
    share, shapes, found = min(1, CLIP_NORM / norm) * (1 - OPTIMIZER.betas[0]), {}, {}
    for name, weight, moment in step.optimizer.moments():
        shapes[name] = moment.shape
        if name == f"moment1.{weight}":
            found[weight] = step.zero.whole(weight, moment) / np.float32(share)
    step.optimizer.set_moments(lambda name: np.zeros(shapes[name], np.float32))
    step.optimizer.updates.set_data(ms.Tensor(0, ms.float32))
    return found


def run(case, world, folder):
    """Gradients of both media at the start, then STEPS updates; everything whole."""
    mesh = Mesh(world.rank, world.size, case["shards"])
    samples = World(mesh.data_rank, mesh.data_size)
    dit = DiT(CONFIG, sequence_of(mesh, CONFIG.num_heads))
    start(dit)
    zero = Zero(dit, case["zero"], world)
    dit.recompute_blocks(case["recompute"])
    optimizer, micro_batches = AdamW(zero.masters, OPTIMIZER, zero.shapes), case["micro_batches"]
    step = Step(flow.FlowMatchingLoss(dit), zero, optimizer, micro_batches, CLIP_NORM, has_terms=False)
    arrays, facts = {}, {"bytes": step.bytes_held(), "losses": [], "norms": []}
    facts["bytes of all parameters"] = parameter_bytes(*(c for c in vars(step).values() if isinstance(c, nn.Cell)))
    graphs = folder / "graphs" / f"rank_{world.rank}"

    def update(medium, number, lr):
        batches = [batch(medium, number, samples, micro) for micro in range(case["joined"] * micro_batches)]
        loss, norm = map(float, step([joined(batches)] if case["joined"] > 1 else batches, lr))
        return loss, norm

    shutil.rmtree(graphs, ignore_errors=True)  # of the case before
    for medium in case["media"]:
        if micro_batches > 1:
            step.backward(*batch(medium, 0, samples))
            facts["sums"] = digest([one.asnumpy() for one in step.sums])
            step.clear()
        facts[f"loss {medium}"], facts[f"norm {medium}"] = update(medium, 0, 0.0)
        if world.is_main and world.size > 1 and medium == case["media"][0]:
            shutil.move(graphs, folder / case["name"])
        found = gradients(step, facts[f"norm {medium}"])
        arrays |= {f"{medium} gradient {name}": gradient for name, gradient in found.items()}
    for number in range(1, STEPS + 1):
        loss, norm = update("video", number, 0.01)
        facts["losses"].append(loss)
        facts["norms"].append(norm)
    weights = zero.arrays()
    assert_holds(dit, zero, weights)
    check_average(dit, zero)
    check_loading(dit, zero)
    arrays |= {f"weight {name}": array for name, array in weights.items()}
    facts["digest"] = digest([arrays[name] for name in sorted(arrays)])
    (folder / f"{case['name']}-{world.rank}.json").write_text(json.dumps(facts))
    if world.is_main:
        save_arrays(folder / f"{case['name']}.safetensors", arrays)


def main(folder, cases):
    device.start(0)
    world = join_world()
    for case in cases:
        run(case, world, folder)
    if world.size > 1:
        check_float16(world)
    barrier(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
