"""`python -m moviegen sample --prompts FILE`: clips or images of prompts of one's own, one a line.

    python -m moviegen sample --config tiny --prompts prompts.txt --size 144x240 --frames 16 --steps 50 \\
        --guidance 3 --schedule linear-quadratic --seed 7 --format gif --output mine

A prompt becomes `000.mp4`, `000.gif`, `000.png` (of a clip: the folder `000` with an image a frame), or `000.npz`: the
latent, which `python -m moviegen tae decode` makes a video later. `prompts.csv` lists them with their seeds, and
`settings.json` says how they were made.

Under `msrun` ranks take whole batches in turn: a batch holds the same prompts however many ranks there are, and so the
same bits come out.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import device, programs, runs, schedule, text
from moviegen.config import ConfigError, Params, Sample, outputs_folder, parse, parse_overrides
from moviegen.data.formats import clip_writer
from moviegen.data.prepare import write_rows
from moviegen.device.collectives import World, barrier, join_world
from moviegen.dit.weights import for_sampling
from moviegen.sample import Embed, Embeddings, Prompt, Sampler, batches, decode_clip, load_trained, numbered
from moviegen.tae.model import Decode
from moviegen.tae.weights import load_tae
from moviegen.weights import replace_npz

# short option -> the parameter it stands for
PARAMETERS = {name: f"sample.{name}" for name in ("size", "frames", "steps", "guidance", "schedule")} | {"seed": "seed"}


@dataclass(frozen=True)
class Order:
    """What is wanted: which prompts, how they are sampled, with which weights, and where they go.

    Args:
        tae: None where latents are written, which need no decoding.
    """

    prompts: list[Prompt]
    settings: Sample
    kind: str
    dit: Path
    tae: Path | None
    folder: Path


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that hold something.

    Raises:
        ConfigError: there is no such file, it is not text, or it is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts: cannot read {path}: {error}") from None
    if not any(lines):
        raise ConfigError(f"--prompts: {path} holds no prompt; write one a line")
    return [line for line in lines if line]


def with_options(params: Params, options: argparse.Namespace) -> Params:
    """The parameters with the short options laid over them, checked as parameters are.

    Raises:
        ConfigError: a value that cannot be.
    """
    given = {name: getattr(options, name) for name in PARAMETERS if getattr(options, name) is not None}
    if "size" in given:
        sides = re.fullmatch(r"(\d+)x(\d+)", given["size"])
        if not sides:
            raise ConfigError(f"--size {given['size']}: write height x width in pixels, as 256x448")
        given["size"] = f"[{sides[1]}, {sides[2]}]"
    overrides = parse_overrides([f"--{PARAMETERS[name]}={value}" for name, value in given.items()])
    wanted = parse(params.model_dump(mode="json"), overrides, origin=f"--config {options.config}")
    if wanted.seed < 0:
        raise ConfigError(f"--seed {wanted.seed}: a seed cannot be negative")
    schedule.get(wanted.sample.schedule, wanted.sample.steps)
    return wanted


def order(params: Params, options: argparse.Namespace) -> Order:
    """Everything that is wanted, checked before anything is computed.

    Other parameters would make other runs: the trained networks are those of `params` as they are, without the options.

    Raises:
        ConfigError: an option that cannot be, or the report has not trained what is needed.
    """
    wanted = with_options(params, options)
    prompts = numbered(read_prompts(Path(options.prompts)), wanted.seed)
    kind = options.format or ("mp4" if wanted.sample.frames > 1 else "png")
    report = runs.find(params, "sample")
    dit = Path(options.dit or for_sampling(report.upstream("stage3").folder))
    tae = None if kind == "latents" else Path(options.tae or report.upstream("tae-mixkit").folder / "tae.safetensors")
    marks = [programs.file_mark(str(path.absolute())) for path in (dit, tae) if path]
    network = [params.dit_config(3).model_dump(mode="json"), params.recipes[3].train.settings.dtype]
    made_from = [settings_of(wanted.sample), [vars(prompt) for prompt in prompts], kind, params.seed, marks, network]
    own = outputs_folder(params) / "samples" / programs.digest([*made_from, params.text.model_dump(mode="json")])
    folder = Path(options.output or own)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: {folder} is a file; name a folder")
    return Order(prompts, wanted.sample, kind, dit, tae, folder)


def settings_of(sample: Sample) -> dict[str, Any]:
    """The parameters that decide a prompt's clip."""
    return sample.model_dump(mode="json", exclude={"num_prompts", "schedule_error", "retrieval"})


def embed(params: Params, prompts: list[Prompt]) -> Embed:
    """Looks captions up among the prompts and the empty one, encoded once.

    Every rank encodes all of them: in another rank's share a caption would have other neighbours in its encoder's
    batch, and with them perhaps other last digits.
    """
    captions = list(dict.fromkeys(["", *(prompt.caption for prompt in prompts)]))
    places = {caption: place for place, caption in enumerate(captions)}
    encoded = [list(encoder.encode(captions)) for encoder in text.encoders(params)]
    ul2, metaclip, byt5 = (np.stack([one.text_emb for one in encoder]) for encoder in encoded)
    keep = np.concatenate([np.stack([one.mask for one in encoder]) for encoder in encoded], 1)

    def embeddings(captions: list[str]) -> Embeddings:
        wanted = [places[caption] for caption in captions]
        return ul2[wanted], metaclip[wanted], byt5[wanted], keep[wanted]

    return embeddings


def file_of(prompt: Prompt, wanted: Order) -> str:
    """What a prompt's clip is called in the folder."""
    if wanted.kind == "png" and wanted.settings.frames > 1:
        return f"{prompt.index:03d}"
    return f"{prompt.index:03d}.{'npz' if wanted.kind == 'latents' else wanted.kind}"


def write_share(wanted: Order, params: Params, world: World) -> None:
    """Samples and writes this rank's batches.

    Raises:
        ConfigError: a checkpoint is damaged, of another size, or decodes other latents than are sampled.
    """
    settings, frames = wanted.settings, wanted.settings.frames
    look_up = embed(params, wanted.prompts)  # before the transformer is there: encoders may be large
    dit = load_trained(wanted.dit, params, 3)
    tae = load_tae(wanted.tae) if wanted.tae else None
    if tae and tae.config.latent_channels != dit.config.latent_channels:
        raise ConfigError(
            f"{wanted.tae} decodes latents of {tae.config.latent_channels} channels, and {wanted.dit} makes "
            f"{dit.config.latent_channels}"
        )
    sampler = Sampler(dit, look_up, settings.guidance, (frames, *settings.size))
    decode, times = Decode(tae) if tae else None, schedule.get(settings.schedule, settings.steps)
    own = batches(wanted.prompts, settings.batch_size)[world.rank :: world.size]
    quiet = None if world.is_main else True
    with tqdm(total=len(own) * settings.steps, desc="sampling", unit="step", disable=quiet) as bar:
        for batch in own:
            for prompt, latent in zip(batch, sampler(batch, times, bar.update), strict=True):
                path = wanted.folder / file_of(prompt, wanted)
                if decode:
                    clip_writer(path, frames)(path, decode_clip(decode, tae, latent, frames), settings.fps)
                else:
                    replace_npz(path, latent_mean=latent, frames=frames, fps=settings.fps)


def write_index(wanted: Order) -> None:
    """Lists what was made, and how."""
    rows = [(prompt.index, prompt.caption, prompt.seed, file_of(prompt, wanted)) for prompt in wanted.prompts]
    write_rows(wanted.folder / "prompts.csv", ("index", "prompt", "seed", "file"), rows)
    weights = {"dit": str(wanted.dit), "tae": str(wanted.tae) if wanted.tae else None}
    runs.write_json(wanted.folder / "settings.json", settings_of(wanted.settings) | weights)


def main(params: Params, options: argparse.Namespace) -> None:
    """`sample --prompts FILE`."""
    wanted = order(params, options)
    device.start(params.seed, params.launch)
    world = join_world()
    write_share(wanted, params, world)
    barrier(world)
    if world.is_main:
        write_index(wanted)
        print(wanted.folder)
    barrier(world)
