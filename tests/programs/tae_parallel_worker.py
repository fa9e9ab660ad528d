"""A worker of test_train_tae: two updates of a phase on its share of each global batch of four clips."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from moviegen import config, device
from moviegen.config import latent_size
from moviegen.device.collectives import barrier, join_world
from moviegen.programs.train_tae import PHASES, Graphs
from moviegen.runs.arrays import save_arrays
from moviegen.tae.model import TAE
from moviegen.train.loop import Batch

CLIP, SAMPLES = (9, 16, 16), 4
SMALL = {"base_channels": 4, "channel_multipliers": [1, 1, 1, 2], "num_res_blocks": 1, "num_groups": 2}
RECIPES = {  # by workers: all of a batch at once; half of it, one clip after the other
    1: {"batch_size": 4},
    2: {"batch_size": 1, "settings": {"zero_stage": 2, "gradient_accumulation_steps": 2}},
}


def main(folder):
    device.start(0)
    world = join_world()
    stage = {
        "steps": 2, "size": CLIP[1:], "frames": CLIP[0], "validation_interval": 2, "ema": {"decay": 0.5},
        "optimizer": {"eps": 0.01}, "lr_scheduler": {"lr": 0.01, "warmup_steps": 0}, **RECIPES[world.size],
    }  # fmt: skip
    params = config.load("smoke", {"tae.model": SMALL, "tae.video": stage})
    run = SimpleNamespace(params=params, folder=folder, metrics_path=folder / "metrics.jsonl", name="tae", identity={})
    views = np.random.default_rng(9).uniform(-1, 1, (2, 3, *CLIP)).astype(np.float32)
    tae = TAE(params.tae.model)
    trainer = Graphs([PHASES["opl-on"]]).trainer_of(run, PHASES["opl-on"], world, tae, views)
    micro_batches = trainer.schedule.micro_batches
    share = SAMPLES // world.size // micro_batches

    def batch_at(step, micro):
        rng = np.random.default_rng(step)
        video = rng.uniform(-1, 1, (SAMPLES, 3, *CLIP)).astype(np.float32)
        noise = rng.standard_normal((SAMPLES, tae.config.latent_channels, *latent_size(*CLIP)), np.float32)
        own = slice((world.rank * micro_batches + micro) * share, (world.rank * micro_batches + micro + 1) * share)
        return Batch((video[own], noise[own]), "video")

    trainer.fit(batch_at)
    weights, averages = trainer.zero.arrays(), trainer.ema.arrays()
    if world.is_main:
        save_arrays(folder / "weights.safetensors", weights)
        save_arrays(folder / "averages.safetensors", averages)
    barrier(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
