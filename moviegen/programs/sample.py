"""`python -m moviegen sample`: videos or images from captions, by guided Euler steps, then decoding (paper 3.4.2).

The report's run samples captions of both splits and leaves each generated clip beside the clip that its caption belongs
to. `--prompts FILE` samples prompts of one's own, one a line, outside of any run:

    python -m moviegen sample --config tiny --prompts prompts.txt --size 144x240 --frames 16 --steps 50 \\
        --guidance 3 --schedule linear-quadratic --seed 7 --format gif --output mine

A prompt becomes `000.mp4`, `000.gif`, `000.png` (of a clip: the folder `000` with an image a frame), or `000.npz`: the
latent, which `python -m moviegen tae decode` makes a video later. `prompts.csv` lists them with their seeds, and
`settings.json` says how they were made. Under `msrun` ranks take whole batches in turn: a batch holds the same prompts
however many ranks there are, and so the same bits come out.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from moviegen import config, runs
from moviegen.config import ConfigError, Params, Sample, Tiling, weights_file
from moviegen.data.clips import Clip
from moviegen.data.crops import centre_frames, spread
from moviegen.data.embeddings import TextArrays, embeddings_folder, read_embeddings, text_arrays
from moviegen.data.formats import clip_writer
from moviegen.data.pixels import to_uint8
from moviegen.data.splits import load_split
from moviegen.data.videos import write_video
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.model import DiT
from moviegen.dit.weights import for_sampling, load_described, load_stage
from moviegen.flow import schedule
from moviegen.flow.sampler import Embed, Prompt, Sampler, batches, numbered
from moviegen.runs.arrays import save_npz
from moviegen.runs.files import check_writable, write_csv, write_json
from moviegen.runs.fingerprint import content_hash, digest
from moviegen.runs.ranks import joined, recorded
from moviegen.tae.model import Decode
from moviegen.tae.tiling import decode_tiles
from moviegen.tae.weights import load_tae
from moviegen.text.encoders import encoders, origins

STAGE = 3  # whose transformer samples
# Kind of prompt -> the split it is of, and what it is of a clip there.
PROMPTS = {
    "unseen": ("mixkit_val", "caption"),
    "paraphrase": ("mixkit_train", "paraphrase"),
    "trained": ("mixkit_train", "caption"),
}
# short option -> the parameter it stands for
PARAMETERS = {name: f"sample.{name}" for name in ("size", "frames", "steps", "guidance", "schedule")} | {"seed": "seed"}


class LatentPipeline:
    """Prompts to latents."""

    def __init__(self, transformer: DiT, settings: Sample, embed: Embed) -> None:
        self.settings, self.channels = settings, transformer.config.latent_channels
        self.sampler = Sampler(transformer, embed, settings.guidance, (settings.frames, *settings.size))

    def latents(self, prompts: list[list[Prompt]], quiet: bool | None) -> Iterator[tuple[Prompt, np.ndarray, float]]:
        """Each prompt's latent (C, T', H', W'), and its share of the seconds that its batch took."""
        times = schedule.get(self.settings.schedule, self.settings.steps)
        with tqdm(total=len(prompts) * self.settings.steps, desc="sampling", unit="step", disable=quiet) as bar:
            for batch in prompts:
                started = time.perf_counter()
                latents = self.sampler(batch, times, bar.update)
                seconds = (time.perf_counter() - started) / len(batch)
                yield from ((prompt, latent, seconds) for prompt, latent in zip(batch, latents, strict=True))

    def write(self, path: Path, latent: np.ndarray) -> None:
        """Writes a latent (C, T', H', W') as it is; `Pipeline` writes its clip."""
        save_npz(path, latent_mean=latent, frames=self.settings.frames, fps=self.settings.fps)


class Pipeline(LatentPipeline):
    """Prompts to latents to clips, which the autoencoder in the file `tae` decodes.

    Raises:
        ConfigError: the file is damaged, or decodes other latents than are sampled.
    """

    def __init__(self, transformer: DiT, settings: Sample, tae: Path, embed: Embed, tiling: Tiling) -> None:
        super().__init__(transformer, settings, embed)
        self.tae, self.tiling = load_tae(tae), tiling
        if (channels := self.tae.config.latent_channels) != self.channels:
            raise ConfigError(f"{tae} decodes latents of {channels} channels, and {self.channels} are sampled")
        self.decode = Decode(self.tae)

    def write(self, path: Path, latent: np.ndarray) -> None:
        clip_writer(path, self.settings.frames)(path, self.clip(latent), self.settings.fps)

    def clip(self, latent: np.ndarray) -> Iterator[np.ndarray]:
        """The frames of a latent (C, T', H', W'), uint8 (H, W, 3) each, as they are decoded."""
        pieces = decode_tiles(self.decode, self.tae.denormalize(latent[None]), self.settings.frames, self.tiling)
        return (frame for piece in pieces for frame in to_uint8(piece[0]))


def chosen_clips(run: runs.Run) -> list[tuple[str, str, Clip]]:
    """What to sample, with the clip each prompt belongs to: evenly spread over what can be asked of each of PROMPTS."""
    data, count = run.upstream("data"), run.params.sample.num_prompts
    chosen = []
    for kind, (split, text) in PROMPTS.items():
        clips = [clip for clip in load_split(data, split) if getattr(clip, text)]
        chosen += [(kind, getattr(clip, text), clip) for clip in spread(clips, count)]
    return chosen


def weights_of(run: runs.Run) -> tuple[DiT, Path]:
    """The transformer and the TAE's file that a run samples with: the report's own, or shipped ones.

    Raises:
        ConfigError: a file is not there, is damaged, or of another size; or shipped weights take other embeddings.
    """
    params, shipped = run.params, run.params.shipped
    if run.program.name != "shipped":
        transformer = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE)
        return transformer, run.upstream("tae-mixkit").folder / "tae.safetensors"
    transformer = load_described(weights_file("shipped.transformer", shipped.transformer))
    if transformer.config.text_widths != params.text.widths:
        raise ConfigError(
            f"shipped.transformer {shipped.transformer} takes embeddings {transformer.config.text_widths} wide, and "
            f"the encoders of `text` give {params.text.widths}: name its encoders, or no shipped weights"
        )
    return transformer, weights_file("shipped.tae", shipped.tae)


def sample(run: runs.Run) -> None:
    """Samples, decodes and writes each caption's video, and its own clip beside it for comparison."""
    params, settings = run.params, run.params.sample
    transformer, tae = weights_of(run)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    pipeline = Pipeline(
        transformer, settings, tae, partial(read_embeddings, embeddings, settings=params.text), params.tae.tiling
    )
    metrics, rows, seconds = runs.MetricsWriter(run.metrics_path), [], []
    metrics.drop_after(0)
    clips = chosen_clips(run)
    prompts = batches(numbered([text for _, text, _ in clips], params.seed), settings.batch_size)
    for prompt, latent, sampling_seconds in pipeline.latents(prompts, quiet=None):
        started = time.perf_counter()
        kind, text, clip = clips[prompt.index]
        generated, reference = (f"videos/{prompt.index:02d}-{kind}.mp4" for kind in ("generated", "reference"))
        write_video(run.folder / generated, pipeline.clip(latent), settings.fps)
        seconds.append(sampling_seconds + time.perf_counter() - started)
        metrics.write(kind="clip", step=prompt.index + 1, steps=len(clips), seconds=round(seconds[-1], 3))
        view = centre_frames(clip, min(clip.frames, settings.frames), *settings.size)
        write_video(run.folder / reference, view, clip.fps or settings.fps)  # at its own speed
        rows.append((prompt.index, kind, text, prompt.seed, generated, reference))
    write_csv(run.folder / "samples.csv", ("index", "kind", "prompt", "seed", "generated", "reference"), rows)
    # The first batch's time holds the compilation, and a shorter last one's another: neither is how long a clip takes.
    steady = seconds[settings.batch_size : len(seconds) // settings.batch_size * settings.batch_size]
    per_clip = float(np.mean(steady)) if steady else None
    summary = {"clips": len(rows), "first_clip_seconds": seconds[0], "seconds_per_clip": per_clip}
    write_json(run.folder / "summary.json", summary)


@dataclass(frozen=True)
class Order:
    """Which prompts, how they are sampled, with which weights, and where they go.

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
    overrides = config.parse_overrides([f"--{PARAMETERS[name]}={value}" for name, value in given.items()])
    changed = config.parse(params.model_dump(mode="json"), overrides, origin=f"--config {options.config}")
    if changed.seed < 0:
        raise ConfigError(f"--seed {changed.seed}: a seed cannot be negative")
    schedule.get(changed.sample.schedule, changed.sample.steps)
    return changed


def read_order(params: Params, options: argparse.Namespace) -> Order:
    """What the options ask for, checked before anything is computed.

    Other parameters would make other runs: the trained networks are those of `params` as they are, without the options.

    Raises:
        ConfigError: an option that cannot be, or the report has not trained what is needed.
    """
    changed = with_options(params, options)
    prompts = numbered(read_prompts(Path(options.prompts)), changed.seed)
    kind = options.format or ("mp4" if changed.sample.frames > 1 else "png")
    report = runs.find(params, "sample")
    dit = Path(options.dit or for_sampling(report.upstream(f"stage{STAGE}").folder))
    tae = None if kind == "latents" else Path(options.tae or report.upstream("tae-mixkit").folder / "tae.safetensors")
    folder = Path(options.output) if options.output else prompts_folder(params, changed.sample, prompts, kind, dit, tae)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: {folder} is a file; name a folder")
    check_writable(folder, "--output")
    return Order(prompts, changed.sample, kind, dit, tae, folder)


def prompts_folder(
    params: Params, settings: Sample, prompts: list[Prompt], kind: str, dit: Path, tae: Path | None
) -> Path:
    """Where clips go by default: a folder named after all that they follow from."""
    weights = {name: str(path.absolute()) for name, path in (("dit", dit), ("tae", tae)) if path}
    contents = {name: content_hash(name, path) for name, path in (config.local_paths(params.text) | weights).items()}
    arithmetic = [config.result_parameters(params.dit_config(STAGE)), params.recipes[STAGE].train.settings.dtype]
    tiles = config.result_parameters(params.tae.tiling) if tae else None
    asked = [settings_of(settings), tiles, [vars(prompt) for prompt in prompts], kind, params.seed]
    mark = digest([*asked, contents, arithmetic, config.result_parameters(params.text)])
    return config.outputs_folder(params) / "samples" / mark


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
    text = text_arrays([(one.text_emb, one.mask) for one in encoder.encode(captions)] for encoder in encoders(params))

    def embeddings(captions: list[str]) -> TextArrays:
        rows = [places[caption] for caption in captions]
        return tuple(array[rows] for array in text)

    return embeddings


def file_of(prompt: Prompt, order: Order) -> str:
    """What a prompt's clip is called in the folder."""
    if order.kind == "png" and order.settings.frames > 1:
        return f"{prompt.index:03d}"
    return f"{prompt.index:03d}.{'npz' if order.kind == 'latents' else order.kind}"


def write_share(order: Order, params: Params, world: World) -> None:
    """Samples and writes this rank's batches."""
    look_up = embed(params, order.prompts)  # before the transformer is there: encoders may be large
    sized = load_stage(order.dit, params, STAGE), order.settings
    pipeline = Pipeline(*sized, order.tae, look_up, params.tae.tiling) if order.tae else LatentPipeline(*sized, look_up)
    share = batches(order.prompts, order.settings.batch_size)[world.rank :: world.size]
    for prompt, latent, _ in pipeline.latents(share, quiet=None if world.is_main else True):
        pipeline.write(order.folder / file_of(prompt, order), latent)


def write_index(order: Order) -> None:
    """Lists what was made, and how."""
    rows = [(prompt.index, prompt.caption, prompt.seed, file_of(prompt, order)) for prompt in order.prompts]
    write_csv(order.folder / "prompts.csv", ("index", "prompt", "seed", "file"), rows)
    weights = {"dit": str(order.dit), "tae": str(order.tae) if order.tae else None}
    write_json(order.folder / "settings.json", settings_of(order.settings) | weights)


def sample_prompts(params: Params, options: argparse.Namespace) -> None:
    """`sample --prompts FILE`."""
    order = read_order(params, options)
    with joined(params) as world:
        write_share(order, params, world)
        barrier(world)
        if world.is_main:
            write_index(order)
            print(order.folder)


def main(params: Params, options: argparse.Namespace) -> None:
    """`sample`: the report's clips, or those of prompts of one's own.

    Raises:
        ConfigError: an option for one's own prompts, and no prompts.
    """
    if options.shipped and not params.shipped.transformer:
        raise ConfigError("--shipped: shipped.transformer and shipped.tae name no weights")
    if options.shipped and options.prompts is not None:
        shipped = params.shipped
        raise ConfigError(
            f"--shipped is of the report's captions; for your own: --dit {shipped.transformer} --tae {shipped.tae}"
        )
    if options.prompts is not None:
        sample_prompts(params, options)
        return
    names = (*PARAMETERS, "output", "dit", "tae", "format")
    if given := [name for name in names if getattr(options, name) is not None]:
        raise ConfigError(
            f"--{given[0]} goes with --prompts FILE; the report's own clips take their parameters from the params file "
            f"and from --sample.steps and the like"
        )
    with recorded(params, "shipped" if options.shipped else "sample") as (run, _):
        sample(run)
