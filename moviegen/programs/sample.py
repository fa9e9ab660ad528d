"""`python -m moviegen sample`: videos or images from captions, by guided Euler steps, then decoding (paper 3.4.2).

The report's run samples captions of both splits and leaves each generated clip beside the clip that its caption belongs
to. `--prompts FILE` samples prompts of one's own, one a line, outside of any run:

    python -m moviegen sample --config tiny --prompts prompts.txt --size 144x240 --frames 16 --steps 50 \\
        --guidance 3 --schedule linear-quadratic --seed 7 --format gif --output mine

A prompt becomes `000.mp4`, `000.gif`, `000.png` (of a clip: the folder `000` with an image a frame), or `000.npz`: the
latent, which `python -m moviegen tae decode` makes a video later. `prompts.csv` lists them with their seeds, and
`settings.json` says how they were made.

The report's own weights also leave the way by two schedules to the first clip of a training caption in `denoising/`:
what is there after a few of the steps, and what it foretells (`flow.denoising`), as latents and as pictures, which
`denoising.csv` lists.

Under `msrun` groups of `sample.shards` ranks take whole batches in turn: a batch holds the same prompts however many
groups there are, and so the same bits come out. Each latent is kept in `latents/` when it is there, and ranks decode
them in turn when all are; a run that was cut goes on with what is missing. Where weights are divided (ZeRO 3), or
tokens, all groups sample as often: one that has nothing left repeats what another does.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from moviegen import config, device, runs
from moviegen.config import (
    TEMPORAL_COMPRESSION,
    ConfigError,
    DiTConfig,
    Params,
    Sample,
    Tiling,
    weights_file,
)
from moviegen.data.clips import Clip
from moviegen.data.crops import centre_frames, spread
from moviegen.data.embeddings import TextArrays, embeddings_folder, read_embeddings, text_arrays
from moviegen.data.formats import clip_writer
from moviegen.data.pixels import to_uint8
from moviegen.data.splits import load_split
from moviegen.data.videos import write_image, write_video
from moviegen.device.collectives import barrier
from moviegen.device.world import World
from moviegen.dit.inference import described_config, load_described, load_dit, load_stage, sampling_mesh
from moviegen.dit.model import DiT
from moviegen.dit.weights import for_sampling
from moviegen.flow import schedule
from moviegen.flow.denoising import Way, followed
from moviegen.flow.sampler import Embed, Prompt, Sampler, batches, filled, full_steps, numbered
from moviegen.parallel.mesh import Mesh
from moviegen.runs.arrays import read_npz, save_npz, stored_metadata
from moviegen.runs.files import check_writable, read_json, write_csv, write_json
from moviegen.runs.fingerprint import content_hash, digest
from moviegen.runs.ranks import joined, recorded
from moviegen.tae.decoding import LatentDecoder
from moviegen.text.encoders import encoders, origins

STAGE = 3  # whose transformer samples
# Kind of prompt -> the split it is of, and what it is of a clip there.
PROMPTS = {
    "unseen": ("mixkit_val", "caption"),
    "paraphrase": ("mixkit_train", "paraphrase"),
    "trained": ("mixkit_train", "caption"),
}
DENOISED = ("linear", "linear-quadratic")  # schedules whose way is kept to the first clip of DENOISED_KIND
DENOISED_KIND = "trained"
# short option -> the parameter it stands for
PARAMETERS = {name: f"sample.{name}" for name in ("size", "frames", "steps", "guidance", "schedule")} | {"seed": "seed"}

OnStep = Callable[[int, int], None]


class LatentPipeline:
    """Prompts to latents.

    Args:
        mesh: of the ranks that the transformer is divided over, or that take batches in turn; None: one rank.
    """

    def __init__(self, transformer: DiT, settings: Sample, embed: Embed, mesh: Mesh | None = None) -> None:
        self.settings, self.channels, self.mesh = settings, transformer.config.latent_channels, mesh or Mesh()
        size = (settings.frames, *settings.size)
        self.sampler = Sampler(transformer, embed, settings.guidance, size, settings.guidance_gate)

    def latents(
        self, prompts: list[list[Prompt]], quiet: bool | None, on_step: OnStep = lambda done, total: None
    ) -> Iterator[tuple[Prompt, np.ndarray, float]]:
        """Each prompt's latent (C, T', H', W') of this rank's batches, and its share of the seconds of its batch.

        Args:
            prompts: the batches of all ranks.
            on_step: told how many of this rank's Euler steps are done, and of how many.
        """
        times = schedule.get(self.settings.schedule, self.settings.steps)
        in_step = self.settings.exchanges(self.mesh.shards)
        turns = list(self.mesh.turns(prompts, in_step))
        with tqdm(total=len(turns) * self.settings.steps, desc="sampling", unit="step", disable=quiet) as bar:
            done = itertools.count(1)

            def step() -> None:
                bar.update()
                on_step(next(done), len(turns) * self.settings.steps)

            for batch, is_own in turns:
                started = time.perf_counter()
                latents = self.sampler(filled(batch, self.settings.batch_size) if in_step else batch, times, step)
                seconds = (time.perf_counter() - started) / len(batch)
                if is_own:
                    yield from ((prompt, latent, seconds) for prompt, latent in zip(batch, latents, strict=False))

    def write_latent(self, path: Path, latent: np.ndarray, **facts: ArrayLike) -> None:
        """Writes a latent (C, T', H', W') as `tae decode` reads it, and facts of it."""
        save_npz(path, latent_mean=latent, frames=self.settings.frames, fps=self.settings.fps, **facts)


class Pipeline(LatentPipeline):
    """Prompts to latents to clips, which the autoencoder in the file `tae` decodes.

    Raises:
        ConfigError: the file is damaged, or decodes other latents than are sampled.
    """

    def __init__(
        self, transformer: DiT, settings: Sample, tae: Path, embed: Embed, tiling: Tiling, mesh: Mesh | None = None
    ) -> None:
        super().__init__(transformer, settings, embed, mesh)
        self.decode = LatentDecoder(tae, self.channels, tiling)

    def write(self, path: Path, latent: np.ndarray) -> None:
        """Decodes a latent (C, T', H', W') and writes its clip."""
        clip_writer(path, self.settings.frames)(path, self.clip(latent), self.settings.fps)

    def clip(self, latent: np.ndarray) -> Iterator[np.ndarray]:
        """The frames of a latent (C, T', H', W') or of a part of one, uint8 (H, W, 3) each, as they are decoded."""
        frames = min(self.settings.frames, TEMPORAL_COMPRESSION * latent.shape[1])
        return (frame for piece in self.decode(latent, frames) for frame in to_uint8(piece))


def chosen_clips(run: runs.Run) -> list[tuple[str, str, Clip]]:
    """What to sample, with the clip each prompt belongs to: evenly spread over what can be asked of each of PROMPTS."""
    data, count = run.upstream("data"), run.params.sample.num_prompts
    chosen = []
    for kind, (split, text) in PROMPTS.items():
        clips = [clip for clip in load_split(data, split) if getattr(clip, text)]
        chosen += [(kind, getattr(clip, text), clip) for clip in spread(clips, count)]
    return chosen


def weights_of(run: runs.Run, world: World) -> tuple[DiT, Path, Mesh]:
    """The transformer, the TAE's file that a run samples with, the report's own or shipped ones, and the mesh of both.

    Raises:
        ConfigError: a file is not there, is damaged, or of another size; or shipped weights take other embeddings.
    """
    params, shipped = run.params, run.params.shipped
    if run.program.name != "shipped":
        mesh = sampling_mesh(params, world, params.dit_config(STAGE))
        transformer = load_stage(for_sampling(run.upstream(f"stage{STAGE}").folder), params, STAGE, mesh)
        return transformer, run.upstream("tae-mixkit").folder / "tae.safetensors", mesh
    file = weights_file("shipped.transformer", shipped.transformer)
    mesh = sampling_mesh(params, world, described_config(file))
    transformer = load_described(file, mesh, params.sample.zero_stage)
    if transformer.config.text_widths != params.text.widths:
        raise ConfigError(
            f"shipped.transformer {shipped.transformer} takes embeddings {transformer.config.text_widths} wide, and "
            f"the encoders of `text` give {params.text.widths}: name its encoders, or no shipped weights"
        )
    return transformer, weights_file("shipped.tae", shipped.tae), mesh


def sample(run: runs.Run, world: World) -> None:
    """Samples, decodes and writes each caption's video, and its own clip beside it for comparison."""
    params, settings = run.params, run.params.sample
    transformer, tae, mesh = weights_of(run, world)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed_stored = partial(read_embeddings, embeddings, settings=params.text)
    pipeline = Pipeline(transformer, settings, tae, embed_stored, params.tae.tiling, mesh)
    clips = chosen_clips(run)
    prompts = numbered([text for _, text, _ in clips], params.seed)
    todo = missing(batches(prompts, settings.batch_size), lambda prompt: latent_file(run, prompt).exists())
    undecoded = [prompt for prompt in prompts if not row_file(run, prompt).exists()]
    denoised = next((prompt for prompt in prompts if clips[prompt.index][0] == DENOISED_KIND), None)
    schedules = DENOISED if denoised and run.program.name == "sample" else ()
    ways = [Way(run.folder / "denoising", name, settings.steps) for name in schedules]
    unfollowed, unseen = [way for way in ways if not way.file.exists()], [one for way in ways for one in way.unseen()]
    barrier(world)  # nobody writes before all have listed the same
    own = undecoded[world.rank :: world.size], unseen[world.rank :: world.size]
    turns = list(mesh.turns(unfollowed, settings.exchanges(mesh.shards)))
    progress = Progress(run.metrics_path, world, len(own[0]), len(turns) * settings.steps + len(own[1]))
    sample_share(run, pipeline, todo, progress)
    barrier(world)
    decode_share(run, pipeline, clips, own[0], progress)
    if denoised:  # the same on all ranks
        denoise_share(pipeline, prompts, denoised, turns, progress)
    barrier(world)
    picture_share(pipeline, own[1], progress)
    barrier(world)
    if world.is_main:
        write_samples(run, prompts)
        if denoised and ways:
            write_ways(run, denoised, ways)


def latent_file(run: runs.Run, prompt: Prompt) -> Path:
    """Where a run keeps a prompt's latent, with the seconds that it took, and whether nothing was compiled in them."""
    return run.folder / "latents" / f"{prompt.index:02d}.npz"


def row_file(run: runs.Run, prompt: Prompt) -> Path:
    """What a run says of a prompt when both of its videos are written."""
    return run.folder / "videos" / f"{prompt.index:02d}.json"


def missing(prompts: list[list[Prompt]], is_there: Callable[[Prompt], bool]) -> list[list[Prompt]]:
    """The batches of which something is not there yet: each whole, as in other company last digits may differ."""
    return [batch for batch in prompts if not all(map(is_there, batch))]


class Progress:
    """What rank 0 writes of its own work: that it begins, and compiles; a line a step, a clip, a picture of a way."""

    def __init__(self, metrics: Path, world: World, clips: int, denoising: int = 0) -> None:
        self.clips, self.sampled, self.denoising, self.denoised = clips, 0, denoising, 0
        self.metrics = runs.MetricsWriter(metrics) if world.is_main else None
        self.quiet = None if world.is_main else True
        if self.metrics:
            self.metrics.drop_after(-1)
            self.metrics.write(kind="state", step=0)

    def step(self, done: int, steps: int) -> None:
        """So many of its steps are done."""
        self.sampled = steps
        if self.metrics:
            self.metrics.write(kind="step", step=done, steps=self.total)

    def clip(self, done: int, seconds: float) -> None:
        """So many of its clips are written, the last in so many seconds."""
        if self.metrics:
            self.metrics.write(kind="clip", step=self.sampled + done, steps=self.total, seconds=round(seconds, 3))

    def way(self) -> None:
        """One more of its steps or pictures of the ways is done."""
        self.denoised += 1
        if self.metrics:
            self.metrics.write(kind="denoising", step=self.sampled + self.clips + self.denoised, steps=self.total)

    @property
    def total(self) -> int:
        """Of all there is to do, so far as it is known."""
        return self.sampled + self.clips + self.denoising


def sample_share(run: runs.Run, pipeline: LatentPipeline, todo: list[list[Prompt]], progress: Progress) -> None:
    """Samples this rank's batches. The first one's time holds the compilation, and a shorter one's another."""
    settings, first = pipeline.settings, None
    sizes = {prompt.index: len(batch) for batch in todo for prompt in batch}
    for prompt, latent, seconds in pipeline.latents(todo, progress.quiet, progress.step):
        batch = prompt.index // settings.batch_size
        first = batch if first is None else first
        is_steady = batch != first and sizes[prompt.index] == settings.batch_size
        path = latent_file(run, prompt)
        if pipeline.mesh.shard_rank == 0 and not path.exists():
            pipeline.write_latent(path, latent, seconds=seconds, is_steady=is_steady)


def decode_share(
    run: runs.Run,
    pipeline: Pipeline,
    clips: list[tuple[str, str, Clip]],
    todo: list[Prompt],
    progress: Progress,
) -> None:
    """Decodes this rank's latents and writes their videos. The first one's time holds the compilation."""
    settings = pipeline.settings
    for done, prompt in enumerate(todo, 1):
        kind, text, clip = clips[prompt.index]
        path = latent_file(run, prompt)
        latent, sampling, is_steady = read_npz(path, "latent_mean", "seconds", "is_steady", mend=f"remove {path}")
        started = time.perf_counter()
        generated, reference = (f"videos/{prompt.index:02d}-{kind}.mp4" for kind in ("generated", "reference"))
        write_video(run.folder / generated, pipeline.clip(latent), settings.fps)
        decoding = time.perf_counter() - started
        view = centre_frames(clip, min(clip.frames, settings.frames), *settings.size)
        write_video(run.folder / reference, view, clip.fps or settings.fps)  # at its own speed
        row = (prompt.index, kind, text, prompt.seed, generated, reference)
        seconds = {"sampling": [float(sampling), bool(is_steady)], "decoding": [decoding, done > 1]}
        write_json(row_file(run, prompt), {"row": row, "seconds": seconds})
        progress.clip(done, float(sampling) + decoding)


def denoise_share(
    pipeline: Pipeline, prompts: list[Prompt], prompt: Prompt, turns: list[tuple[Way, bool]], progress: Progress
) -> None:
    """Keeps what is there, and what is foretold, on this rank's ways to one prompt's latent.

    It is sampled in the company that it had for its clip: the way by the same schedule ends in the same bits.
    """
    settings, sampler = pipeline.settings, pipeline.sampler
    batch = next(batch for batch in batches(prompts, settings.batch_size) if prompt in batch)
    place = batch.index(prompt)
    if settings.exchanges(pipeline.mesh.shards):
        batch = filled(batch, settings.batch_size)
    for way, is_own in turns:
        velocity = sampler.velocity(batch, full_steps(settings.steps, settings.guidance_gate))
        found = followed(sampler.noise(batch), velocity, way.times, way.after, progress.way)
        if is_own and pipeline.mesh.shard_rank == 0:
            save_npz(way.file, latents=found[:, :, place])


def picture_share(pipeline: Pipeline, todo: list[tuple[Way, int, bool]], progress: Progress) -> None:
    """Decodes the middle of this rank's latents of ways, as long as a tile, and writes the frame in its middle."""
    tile = pipeline.decode.tiling.frames // TEMPORAL_COMPRESSION
    for way, stop, is_foretold in todo:
        latent = way.latents[int(is_foretold), stop]
        start = max(0, (latent.shape[1] - tile) // 2)
        frames = list(pipeline.clip(latent[:, start : start + tile]))
        write_image(way.picture(stop, is_foretold), frames[len(frames) // 2])
        progress.way()


def write_ways(run: runs.Run, prompt: Prompt, ways: list[Way]) -> None:
    """Lists the pictures of the ways, and how far what is foretold is from where the way ends, by that one's length."""
    rows: list[tuple[object, ...]] = []
    for way in ways:
        foretold = way.latents[1].reshape(len(way.after), -1)
        distances = np.linalg.norm(foretold - foretold[-1], axis=1) / np.linalg.norm(foretold[-1])
        for stop, (after, distance) in enumerate(zip(way.after, distances, strict=True)):
            files = [way.picture(stop, is_foretold).relative_to(run.folder) for is_foretold in (False, True)]
            rows.append((way.schedule, after, way.times[after], float(distance), *files, prompt.caption, prompt.seed))
    header = ("schedule", "after", "time", "distance", "latent", "foretold", "prompt", "seed")
    write_csv(run.folder / "denoising.csv", header, rows)


def write_samples(run: runs.Run, prompts: list[Prompt]) -> None:
    """Lists what all ranks made, and how long a clip takes where nothing is compiled."""
    made = [read_json(row_file(run, prompt), "remove it and sample again") for prompt in prompts]
    header = ("index", "kind", "prompt", "seed", "generated", "reference")
    write_csv(run.folder / "samples.csv", header, [one["row"] for one in made])
    seconds = [one["seconds"] for one in made]
    steady = {part: [one[part][0] for one in seconds if one[part][1]] for part in ("sampling", "decoding")}
    is_known = all(steady.values())
    summary = {
        "clips": len(made),
        "first_clip_seconds": seconds[0]["sampling"][0] + seconds[0]["decoding"][0],
        "seconds_per_clip": float(sum(map(np.mean, steady.values()))) if is_known else None,
    }
    write_json(run.folder / "summary.json", summary)


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
    with recorded(params, "shipped" if options.shipped else "sample") as (run, world):
        sample(run, world)
