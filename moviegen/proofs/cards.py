"""Sampling on many cards, at a width that a CPU holds: the same clip, less memory, half the calls, nothing made again.

A job of workers samples clips of a random transformer with its tokens or its weights divided, and its latents are
compared with those of one worker. `python -m moviegen.proofs.cards FOLDER` is a worker of such a job.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from moviegen import device
from moviegen.config import DiTConfig, Params, Sample
from moviegen.data.embeddings import TextArrays
from moviegen.device.collectives import barrier, join_world
from moviegen.dit.inference import load_dit
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.sampler import Sampler, batches, numbered
from moviegen.launch.job import Job
from moviegen.launch.run import run_job
from moviegen.parallel.mesh import Mesh
from moviegen.plan.flops import block_matrix_count, matrix_count, parameter_count, position_count
from moviegen.proofs.proof import Proof, within
from moviegen.runs.arrays import read_npz, save_npz
from moviegen.runs.files import read_json, write_json

MODEL, WEIGHTS = "config.json", "dit.safetensors"
LENGTHS = (3, 2, 5)  # tokens of a caption in each encoder
SAME = 1e-5  # that a clip's latent may differ by: the order of sums follows from how they are divided
SMALL = DiTConfig(
    width=32, ffn_width=48, num_heads=4, num_layers=3, max_size=(4, 6, 6), text_widths=(6, 5, 4), frequency_width=16
)
WIDE = SMALL.model_copy(update={"width": 512, "ffn_width": 1408, "num_heads": 8, "num_layers": 8})


@dataclass(frozen=True)
class Division:
    """How a job divides what it samples: over so many workers, of which `shards` share a clip's tokens."""

    workers: int
    shards: int = 1
    zero_stage: int = 0

    @property
    def name(self) -> str:
        """In words that a file can be called by."""
        return f"{self.workers}-workers-shards-{self.shards}-zero-{self.zero_stage}"


DIVISIONS = (Division(2, 2), Division(2, 1, 3), Division(4, 2, 3), Division(4, 4, 3))


def random_weights(folder: Path, config: DiTConfig, seed: int = 0) -> None:
    """Writes a transformer that moves: a new one's last layer is zero, and so is its velocity."""
    ms.set_seed(seed)
    dit, rng = DiT(config), np.random.default_rng(seed)
    for parameter in dit.get_parameters():
        size = 0.3 / max(1, parameter.shape[-1]) ** 0.5
        parameter.set_data(ms.Tensor(parameter.asnumpy() + size * rng.standard_normal(parameter.shape, np.float32)))
    save_dit(folder / WEIGHTS, dit)


def embed(config: DiTConfig, captions: list[str]) -> TextArrays:
    """Embeddings that follow from a caption's text, the empty one's too."""
    rngs = [np.random.default_rng([len(caption), *caption.encode()]) for caption in captions]
    arrays = [
        np.stack([rng.standard_normal((length, width), np.float32) for rng in rngs])
        for length, width in zip(LENGTHS, config.text_widths, strict=True)
    ]
    return (*arrays, np.stack([np.arange(sum(LENGTHS)) % 5 <= len(caption) for caption in captions]))


def sampled(
    folder: Path,
    config: DiTConfig,
    division: Division,
    prompts: int,
    steps: int,
    size: tuple[int, int, int],
    **guidance: float,
) -> list[dict[str, Any]]:
    """Has a job sample prompts with the weights of a folder; what each rank says of itself, its latents beside it."""
    own = folder / division.name
    settings = Sample(
        frames=size[0], size=size[1:], shards=division.shards, zero_stage=division.zero_stage, steps=steps,
        **{"guidance": 3.0} | guidance,
    )  # fmt: skip
    asked = {"prompts": prompts, "weights": str(folder / WEIGHTS), "config": config.model_dump(mode="json")}
    write_json(own / MODEL, asked | {"settings": settings.model_dump(mode="json")})
    run_job(
        Job(
            command=("python", "-m", "moviegen.proofs.cards", str(own)),
            log_dir=own / "logs",
            worker_num=division.workers,
            local_worker_num=division.workers,
        )
    )
    return [read_json(own / f"rank-{rank}.json", "run it again") for rank in range(division.workers)]


def latents(folder: Path, division: Division, prompts: int) -> np.ndarray:
    """What a job sampled: (prompts, C, T', H', W')."""
    files = [folder / division.name / f"{index}.npz" for index in range(prompts)]
    return np.stack([read_npz(file, "latent", mend="run it again")[0] for file in files])


def as_worker(folder: Path) -> None:
    """Samples this rank's batches, a prompt each, as `sample` does."""
    device.start(0)
    world, asked = join_world(), read_json(folder / MODEL, "run it again")
    config, settings = DiTConfig.model_validate(asked["config"]), Sample.model_validate(asked["settings"])
    mesh = Mesh(world.rank, world.size, settings.shards_among(world.size, config.num_heads))
    dit = load_dit(Path(asked["weights"]), config, mesh=mesh, zero_stage=settings.zero_stage)
    size = (settings.frames, *settings.size)
    sampler = Sampler(dit, lambda captions: embed(config, captions), settings.guidance, size, settings.guidance_gate)
    prompts = numbered([f"prompt {index}" for index in range(asked["prompts"])], 7)
    todo = [batch for batch in batches(prompts, 1) if not (folder / f"{batch[0].index}.npz").exists()]
    barrier(world)
    made, seconds = [], []
    for batch, is_own in mesh.turns(todo, settings.exchanges(mesh.shards)):
        started = time.perf_counter()
        (latent,) = sampler(batch, schedule.linear(settings.steps))
        seconds.append(time.perf_counter() - started)
        if is_own and mesh.shard_rank == 0:
            save_npz(folder / f"{batch[0].index}.npz", latent=latent)
            made.append(batch[0].index)
    held = sum(parameter.nbytes for parameter in dit.get_parameters())
    write_json(folder / f"rank-{world.rank}.json", {"weight_bytes": held, "made": made, "seconds": seconds})
    barrier(world)


def weight_bytes(config: DiTConfig, parts: int) -> float:
    """Of a rank that holds so large a part of each matrix, in float32; padding left out."""
    matrices = matrix_count(config)
    return 4 * (matrices / parts + parameter_count(config) + position_count(config) - matrices)


def same_clips(folder: Path) -> Iterator[Proof]:
    """The latents of two and four workers against those of one."""
    clips, steps, size = (
        3,
        3,
        (9, 32, 48),
    )  # a last round in which groups have nothing of their own; tokens to be padded
    random_weights(folder, SMALL)
    alone = Division(1)
    sampled(folder, SMALL, alone, clips, steps, size)
    wanted = latents(folder, alone, clips)
    for division in DIVISIONS:
        sampled(folder, SMALL, division, clips, steps, size)
        largest = float(np.abs(latents(folder, division, clips) - wanted).max())
        yield Proof(
            "Workers that share a clip's tokens or the transformer's weights sample the clip that one worker samples.",
            f"largest difference of a latent of {clips} clips, {division.workers} workers, {division.shards} sharing "
            f"tokens, ZeRO {division.zero_stage}",
            largest, 0.0, 0.0, SAME,
        )  # fmt: skip


def divided_memory(folder: Path) -> Iterator[Proof]:
    """What a rank holds of the weights where they are divided over one, two and four."""
    random_weights(folder, WIDE)
    for workers in (1, 2, 4):
        division = Division(workers, workers, 3)
        found = sampled(folder, WIDE, division, 1, 1, (1, 32, 48))
        predicted = weight_bytes(WIDE, workers) / 2**20
        yield Proof(
            "Each worker that samples holds its part of the matrices: 30B's weights divide over the cards.",
            f"weights of the fullest of {workers} ranks, {matrix_count(WIDE) / 1e6:.0f} million in matrices, of which "
            f"{block_matrix_count(WIDE) / 1e6:.1f} in a block",
            max(rank["weight_bytes"] for rank in found) / 2**20, predicted, *within(predicted, 0.001), "MiB",
        )  # fmt: skip


def guidance_seconds(folder: Path) -> Iterator[Proof]:
    """A clip's seconds at guidance 1 and with the last difference reused, against those with both velocities asked."""
    random_weights(folder, WIDE)
    seconds = {}
    for guidance, gate in ((3.0, 1.0), (1.0, 1.0), (3.0, 0.5)):
        own = folder / f"{guidance}-{gate}"
        own.mkdir()
        (own / WEIGHTS).symlink_to(folder / WEIGHTS)
        (found,) = sampled(own, WIDE, Division(1), 4, 8, (32, 96, 96), guidance=guidance, guidance_gate=gate)
        seconds[guidance, gate] = min(found["seconds"][1:])  # the first one's hold the compilation
    for (guidance, gate), predicted in (((1.0, 1.0), 0.5), ((3.0, 0.5), 0.75)):
        yield Proof(
            "At guidance 1 one velocity is computed and not two, which halves the seconds of a clip; a difference that "
            "is reused in the second half saves a quarter.",
            f"seconds of a clip at guidance {guidance:g}, whole for {gate:.0%} of the steps, over those at guidance 3",
            seconds[guidance, gate] / seconds[3.0, 1.0], predicted, *within(predicted, 0.25),
        )  # fmt: skip


def resumed(folder: Path) -> Iterator[Proof]:
    """What is sampled again after a clip is lost."""
    random_weights(folder, SMALL)
    division, clips = Division(2), 5
    work = (folder, SMALL, division, clips, 2, (9, 32, 48))
    sampled(*work)
    before = latents(folder, division, clips)
    for index in (1, 4):
        (folder / division.name / f"{index}.npz").unlink()
    found = sampled(*work)
    claim = "A run that was cut makes what is missing and nothing else, with the same bits."
    made = sum(len(rank["made"]) for rank in found)
    yield Proof(claim, "clips of five sampled by two workers where two are missing", made, 2.0, 2.0, 2.0)
    largest = float(np.abs(latents(folder, division, clips) - before).max())
    yield Proof(claim, "largest difference of a latent from before", largest, 0.0, 0.0, 0.0)


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """What is measured here of sampling on many cards; none of it follows from the parameters."""
    del params
    for measured in (same_clips, divided_memory, guidance_seconds, resumed):
        own = folder / measured.__name__
        own.mkdir(parents=True, exist_ok=True)
        yield from measured(own)


if __name__ == "__main__":
    as_worker(Path(sys.argv[1]))
