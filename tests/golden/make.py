"""Writes `dit.npz`, `tae.npz` and `schedule.npz`: the released implementation's numbers, for small networks.

    .venv-parity/bin/python -m tests.golden.make

The released implementation (mindone `examples/moviegen`) was run once, at random weights: its numbers are the given
set. The PyTorch twins of tests/parity, and a formula for the schedules, must first give all of them again; where they
do not, or where the given set is absent, nothing is written. Then the twins run at random weights and inputs of their
own, with fewer channels, pixels and patches:

- all the given names, also those of the projections of a time embedding that no layer of the TAE reads;
- an image and two videos through the transformer, the last as large as its position tables; no text is masked;
- 1, 8, 9 and 16 frames through the TAE, which has temporal attention and pads temporal upsampling with zeros;
- schedules of as many steps as the given ones.

The bytes are the same every time: `np.savez` dates its members 1980, and the twins compute in float64, so that the
order in which a processor adds is lost when their numbers are rounded to float32. Time-steps stay float64.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from moviegen.config import DiTConfig, TAEConfig
from tests.golden import CASES, FRAMES, GIVEN, SMALL, STEPS, Golden, difference, weights
from tests.parity.comparing import random_weights
from tests.parity.names import torch_name
from tests.parity.torch_dit import TorchDiT
from tests.parity.torch_tae import TorchTAE

Arrays = dict[str, np.ndarray]
BOUNDS = {"dit": 5e-6, "tae": 5e-6, "schedule": 1e-12}  # of `difference`; the networks were run in float32
LATENTS = ((1, 4, 4), (2, 4, 6), (3, 8, 12))  # T', H', W' of each case
LENGTHS = ((5, 4, 7), (2, 6, 3), (1, 1, 1))  # tokens of its three texts
TIMESTEPS = ((1000, 37.5), (750, 0), (990.625, 500))
PIXELS = (16, 24)
NEVER_READ = ".temb_proj."
TIME_WIDTH = 4  # of the time embedding, published with 512


# --- what the released implementation computes ---


@torch.no_grad()
def velocities(config: DiTConfig, given: Arrays) -> Arrays:
    """The transformer's output for every case in a file."""
    twin = TorchDiT(config)
    twin.load_state_dict({name: torch.tensor(array) for name, array in weights(given).items()})
    twin.double()
    found = {}
    for case in (f"case{index}" for index in CASES):
        latent, *texts = (
            torch.tensor(given[f"{case}/{key}"]).double() for key in ("latent", "ul2", "metaclip", "byt5")
        )
        velocity = twin(latent.transpose(1, 2).contiguous(), torch.tensor(given[f"{case}/timestep"]), *texts)
        found[f"{case}/output"] = velocity.transpose(1, 2).float().numpy()
    return found


@torch.no_grad()
def codings(config: TAEConfig, given: Arrays) -> Arrays:
    """What the TAE makes of every video and latent in a file."""
    twin = TorchTAE(config)
    twin.load({name: array for name, array in weights(given).items() if NEVER_READ not in name})
    twin.double()
    found = {}
    for frames in FRAMES:
        video = torch.tensor(given[f"encode/{frames}/video"]).double()
        latent = torch.tensor(given[f"decode/{frames}/latent"]).double()
        found[f"encode/{frames}/mean"] = twin.encode(video)[0].float().numpy()
        found[f"decode/{frames}/video"] = twin.decode(latent, 8 * latent.shape[2]).float().numpy()
    return found


def timesteps() -> Arrays:
    """Where the steps of every schedule begin."""
    found = {}
    for steps in STEPS:
        found[f"linear_{steps}"] = 1000 * (1 - np.arange(steps) / steps)
        first = 1000 - np.arange((steps + 1) // 2)  # as in a thousand steps
        left = steps + 1 - len(first)
        found[f"linear-quadratic_{steps}"] = np.append(first, first[-1] * (1 - (np.arange(1, left) / left) ** 2))
    return found


def released(golden: Golden, part: str, given: Arrays) -> Arrays:
    """What one of the three above computes of a file's other arrays."""
    if part == "dit":
        return velocities(golden.dit, given)
    return codings(golden.tae, given) if part == "tae" else timesteps()


def prove(golden: Golden) -> dict[str, float]:
    """The largest `difference` from each file of a set.

    Raises:
        SystemExit: a file is absent, or a difference is larger than it may be.
    """
    largest = {}
    for part, bound in BOUNDS.items():
        if not golden.path(part).is_file():
            raise SystemExit(f"error: nothing written: there is no {golden.path(part)}")
        given = golden.read(part)
        apart = {name: difference(array, given[name]) for name, array in released(golden, part, given).items()}
        worst = max(apart, key=apart.get)
        if not apart[worst] <= bound:
            message = f"{worst} in {golden.path(part)} is {apart[worst]:.1e} of its largest number away from the twin's"
            raise SystemExit(f"error: nothing written: {message}; {bound:.0e} is allowed")
        largest[part] = apart[worst]
    return largest


# --- the small set ---


def transformer(config: DiTConfig) -> Arrays:
    """Weights and inputs of a `dit` file."""
    rng = np.random.default_rng(12)
    shapes = {name: tuple(parameter.shape) for name, parameter in TorchDiT(config).named_parameters()}
    arrays = {f"param/{name}": array for name, array in random_weights(shapes, seed=11).items()}
    for case, (frames, height, width) in enumerate(LATENTS):
        inputs = {"latent": rng.standard_normal((2, frames, config.latent_channels, height, width))}
        inputs["timestep"] = np.array(TIMESTEPS[case])
        for text, length, wide in zip(("ul2", "metaclip", "byt5"), LENGTHS[case], config.text_widths, strict=True):
            inputs[text] = rng.standard_normal((2, length, wide))
        arrays |= {f"case{case}/{name}": array.astype(np.float32) for name, array in inputs.items()}
    return arrays


def autoencoder(config: TAEConfig, names: Iterable[str]) -> Arrays:
    """Weights under the published names, and inputs, of a `tae` file."""
    rng, shapes = np.random.default_rng(14), {}
    parameters = dict(TorchTAE(config).named_parameters())
    for name in names:
        if NEVER_READ in name:
            width = len(parameters[name[: name.index(NEVER_READ)] + ".norm2.weight"])
            shapes[name] = (width, TIME_WIDTH) if name.endswith("weight") else (width,)
        else:
            shape = parameters[torch_name(name)].shape
            shapes[name] = (*shape[:2], *sorted(shape[2:]))  # a temporal kernel is published as (out, in, 1, time)
    arrays = {f"param/{name}": array for name, array in random_weights(shapes, seed=13).items()}
    for frames in FRAMES:
        latent = (1, config.latent_channels, -(-frames // 8), *(side // 8 for side in PIXELS))
        arrays[f"encode/{frames}/video"] = rng.uniform(-1, 1, (1, 3, frames, *PIXELS)).astype(np.float32)
        arrays[f"decode/{frames}/latent"] = rng.standard_normal(latent).astype(np.float32)
    return arrays


def main() -> None:
    """Proves, then writes."""
    for part, largest in prove(GIVEN).items():
        print(f"{part}: the given numbers, but for {largest:.1e} of the largest")
    published = weights(GIVEN.read("tae"))
    inputs = {"dit": transformer(SMALL.dit), "tae": autoencoder(SMALL.tae, published), "schedule": {}}
    for part, given in inputs.items():
        np.savez(SMALL.path(part), **given, **released(SMALL, part, given))


if __name__ == "__main__":
    main()
