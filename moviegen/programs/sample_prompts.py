"""`sample --prompts FILE`: prompts of one's own, one a line, outside of any run.

    python -m moviegen sample --config tiny --prompts prompts.txt --size 144x240 --frames 16 --steps 50 \\
        --guidance 3 --schedule linear-quadratic --seed 7 --format gif --output mine

A prompt becomes `000.mp4`, `000.gif`, `000.png` (of a clip: the folder `000` with an image a frame), or `000.npz`: the
latent, which `python -m moviegen tae decode` makes a video later. `prompts.csv` lists them with their seeds, and
`settings.json` says how they were made.
"""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen import config, device, runs
from moviegen.config import ConfigError, DiTConfig, Params, Sample
from moviegen.data.embeddings import TextArrays, text_arrays
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.inference import described_config, load_dit, sampling_mesh
from moviegen.dit.weights import for_sampling
from moviegen.flow import schedule
from moviegen.flow.sampler import Embed, Prompt, batches, numbered
from moviegen.programs.sampling_pipeline import STAGE, LatentPipeline, Pipeline, Progress, missing
from moviegen.runs.arrays import read_npz, stored_metadata
from moviegen.runs.files import check_writable, read_json, write_csv, write_json
from moviegen.runs.fingerprint import content_hash, digest
from moviegen.runs.ranks import joined
from moviegen.text.encoders import encoders

# short option -> the parameter it stands for
PARAMETERS = {name: f"sample.{name}" for name in ("size", "frames", "steps", "guidance", "schedule")} | {"seed": "seed"}


@dataclass(frozen=True)
class Order:
    """Which prompts, how they are sampled, with which weights, and where they go.

    Args:
        tae: None where latents are written, which need no decoding.
        mark: a hash of all that the clips follow from.
    """

    prompts: list[Prompt]
    settings: Sample
    kind: str
    dit: Path
    tae: Path | None
    folder: Path
    mark: str

    def path(self, prompt: Prompt) -> Path:
        """Where a prompt's clip goes."""
        if self.kind == "png" and self.settings.frames > 1:
            return self.folder / f"{prompt.index:03d}"
        return self.folder / f"{prompt.index:03d}.{'npz' if self.kind == 'latents' else self.kind}"

    def latent(self, prompt: Prompt) -> Path:
        """Where its latent goes."""
        return self.folder / ("" if self.kind == "latents" else "latents") / f"{prompt.index:03d}.npz"

    def is_made(self, prompt: Prompt) -> bool:
        """Whether its clip is there: of a folder of images, all of them."""
        path = self.path(prompt)
        return path.is_file() or len(list(path.glob("*.png"))) == self.settings.frames


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
    mark = mark_of(params, changed.sample, prompts, kind, dit, tae)
    folder = Path(options.output) if options.output else config.outputs_folder(params) / "samples" / mark
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: {folder} is a file; name a folder")
    if (folder / "manifest.json").exists():
        raise ConfigError(f"--output: {folder} is a run's own folder; name another")
    check_writable(folder, "--output")
    return Order(prompts, changed.sample, kind, dit, tae, folder, mark)


def mark_of(params: Params, settings: Sample, prompts: list[Prompt], kind: str, dit: Path, tae: Path | None) -> str:
    """A hash of all that clips follow from, after which the folder is named that they go to by default."""
    weights = {name: str(path.absolute()) for name, path in (("dit", dit), ("tae", tae)) if path}
    contents = {name: content_hash(name, path) for name, path in (config.local_paths(params.text) | weights).items()}
    arithmetic = [config.result_parameters(params.dit_config(STAGE)), params.recipes[STAGE].train.settings.dtype]
    tiles = config.result_parameters(params.tae.tiling) if tae else None
    asked = [settings_of(settings), tiles, [vars(prompt) for prompt in prompts], kind, params.seed]
    return digest([*asked, contents, arithmetic, config.result_parameters(params.text)])


def settings_of(sample: Sample) -> dict[str, Any]:
    """The parameters that decide a prompt's clip."""
    values = config.result_parameters(sample)
    return {name: value for name, value in values.items() if name not in ("num_prompts", "schedule_error", "retrieval")}


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


def todo_of(order: Order) -> tuple[list[list[Prompt]], list[Prompt]]:
    """The batches that a folder lacks latents of, and the prompts that it lacks clips of.

    That is all of them where the folder holds what was made otherwise.
    """
    path = order.folder / "settings.json"
    is_same = path.is_file() and read_json(path, "remove it").get("mark") == order.mark
    prompts = batches(order.prompts, order.settings.batch_size)
    unsampled = missing(prompts, lambda prompt: is_same and order.latent(prompt).exists())
    return unsampled, [prompt for prompt in order.prompts if not (is_same and order.is_made(prompt))]


def config_of(dit: Path, params: Params) -> DiTConfig:
    """What the transformer of a named file is like: as the file says, else as stage 3's is; it takes these encoders."""
    expected = params.dit_config(STAGE)
    said = stored_metadata(dit).get("dit_config") if dit.suffix == ".safetensors" else None
    if said is None:
        return expected
    return described_config(dit).model_copy(update={"text_widths": expected.text_widths})


def write_share(order: Order, params: Params, world: World) -> None:
    """Samples this rank's batches, writes their latents, and decodes its share of all of them when all are there."""
    config = config_of(order.dit, params)
    mesh = sampling_mesh(params, world, config)
    look_up = embed(params, order.prompts)  # before the transformer is there: encoders may be large
    dtype = device.compute_dtype(params.recipes[STAGE].train.settings.dtype)
    sized = load_dit(order.dit, config, dtype, mesh, params.sample.zero_stage), order.settings
    pipeline = (
        Pipeline(*sized, order.tae, look_up, params.tae.tiling, mesh)
        if order.tae
        else LatentPipeline(*sized, look_up, mesh)
    )
    unsampled, undecoded = todo_of(order)
    barrier(world)  # nobody writes before all have listed the same
    if world.is_main:
        write_index(order)
    own = undecoded[world.rank :: world.size] if order.tae else []
    progress = Progress(order.folder / "metrics.jsonl", world, len(own))
    for prompt, latent, _ in pipeline.latents(unsampled, progress.quiet, progress.step):
        if mesh.shard_rank == 0:
            pipeline.write_latent(order.latent(prompt), latent)
    barrier(world)
    if not isinstance(pipeline, Pipeline):  # latents are what was asked for
        return
    for done, prompt in enumerate(own, 1):
        path, started = order.latent(prompt), time.perf_counter()
        (latent,) = read_npz(path, "latent_mean", mend=f"remove {path}")
        pipeline.write(order.path(prompt), latent)
        progress.clip(done, time.perf_counter() - started)


def write_index(order: Order) -> None:
    """Lists what is made, and how."""
    rows = [(prompt.index, prompt.caption, prompt.seed, order.path(prompt).name) for prompt in order.prompts]
    write_csv(order.folder / "prompts.csv", ("index", "prompt", "seed", "file"), rows)
    weights = {"dit": str(order.dit), "tae": str(order.tae) if order.tae else None}
    write_json(order.folder / "settings.json", settings_of(order.settings) | weights | {"mark": order.mark})


def sample_prompts(params: Params, options: argparse.Namespace) -> None:
    """`sample --prompts FILE`."""
    order = read_order(params, options)
    with joined(params) as world:
        write_share(order, params, world)
        barrier(world)
        if world.is_main:
            print(order.folder)
