"""`python -m moviegen train --stage 1|2|3`: one stage of the transformer, in one process or under `msrun`.

Stage 1 sees images; stage 2 images and videos, with the spatial tables grown 2x and a temporal one added; stage 3 the
same at three times the resolution, with the spatial tables grown 3x. Each starts from the one before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from moviegen import device, runs
from moviegen.config import Bucket, ConfigError, Params, Text, weights_file
from moviegen.data.choice import spread
from moviegen.data.clips import Clip
from moviegen.data.embeddings import check_captions, embeddings_folder, open_embeddings, read_embeddings
from moviegen.data.index import Cache
from moviegen.data.latents import (
    by_bucket,
    check_latents,
    image_buckets,
    latent_file,
    latents_folder,
    load_latent,
    open_latents,
    video_buckets,
)
from moviegen.data.reading import in_threads
from moviegen.data.splits import data_folder, load_split
from moviegen.device.world import World
from moviegen.dit.model import DiT, TokenDiT
from moviegen.dit.values import Drawn, Stored, declared
from moviegen.dit.weights import EMA_WEIGHTS, WEIGHTS, save_dit
from moviegen.flow.path import FlowMatchingLoss, SampleLosses
from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import sequence_of
from moviegen.parallel.zero import Zero
from moviegen.programs.training_samples import decode_samples, sampled_latents, sampling_graphs
from moviegen.runs.files import write_csv
from moviegen.runs.ranks import recorded
from moviegen.text.encoders import encoders, origins
from moviegen.train.batches import Batches, ClipSet, Samples, ValidationBatches
from moviegen.train.checkpoint import POLL_SECONDS, Checkpoint
from moviegen.train.ema import EMA
from moviegen.train.loop import Batch, Schedule, Trainer
from moviegen.train.optim import LossScale
from moviegen.train.resume import start


def validation(
    losses: nn.Cell, batches: TokenBatches | ValidationBatches, counts: Mapping[float, float]
) -> Callable[[Callable[..., None]], Mapping[str, float]]:
    """The mean loss of this rank's samples, and its part of the mean at each time; tells which of its batches is done.

    Args:
        losses: of each sample of a batch.
        counts: how many samples of each time a rank takes in the mean, by which it divides: ranks need not take
            each equally often, and the mean of their parts is that of all samples.
    """

    def validate(alive: Callable[..., None]) -> Mapping[str, float]:
        measured, times = [], []
        for done, inputs in enumerate(batches, 1):
            measured.append(losses(*map(ms.Tensor, inputs)).asnumpy().astype(np.float64))
            times.append(inputs[2])
            alive(batch=done, batches=len(batches))
        each, at = np.concatenate(measured), np.concatenate(times)
        parts = {f"loss_at_{t:g}": float(each[at == t].sum() / count) for t, count in counts.items()}
        return {"loss": float(each.mean())} | parts

    return validate


@dataclass(frozen=True)
class TokenBatches:
    """Batches as a transformer by tokens takes them, in the latents' place their tokens and where these lie.

    Called, those of training; iterated, those of validation.
    """

    dit: TokenDiT
    training: Batches
    held_out: ValidationBatches

    def __call__(self, step: int, micro: int) -> Batch:
        batch = self.training(step, micro)
        return replace(batch, inputs=self._tokens(batch.inputs))

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        return map(self._tokens, self.held_out)

    def __len__(self) -> int:
        return len(self.held_out)

    def _tokens(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        x_1, x_0, t, *text = inputs
        return (self.dit.tokens(x_1), self.dit.tokens(x_0), t, self.dit.places(x_1.shape), *text)


def starting_weights(run: runs.Run, stage: int) -> Path | None:
    """The named checkpoint, or the previous stage's; None where stage 1 starts from nothing."""
    named = run.params.recipes[stage].model.pretrained_model_path
    if named:
        return weights_file("model.pretrained_model_path", named)
    return run.upstream(f"stage{stage - 1}").folder / WEIGHTS if stage > 1 else None


def build(run: runs.Run, stage: int, mesh: Mesh) -> tuple[DiT, Zero]:
    """The stage's transformer on this rank's place in the mesh, with what the rank holds of the weights it starts from.

    Raises:
        CheckpointError: those are of another transformer, or damaged.
    """
    settings, config = run.params.recipes[stage].train.settings, run.params.dit_config(stage)
    dit = declared(config, sequence_of(mesh, config.num_heads), device.compute_dtype(settings.dtype))
    start = starting_weights(run, stage)
    values = Stored(dit, start, grow=True) if start else Drawn(dit, run.params.seed)
    return dit, Zero(dit, settings.zero_stage, World(mesh.rank, mesh.size), values)


@dataclass(frozen=True)
class Caches:
    """A stage's latents and embeddings."""

    latents: Cache
    embeddings: Cache

    @classmethod
    def of(cls, run: runs.Run, stage: int, looks: bool = True) -> Caches:
        """Those that the stage's recipe asks for.

        Args:
            looks: whether this rank looks at the files for all.

        Raises:
            ConfigError: they were made by another autoencoder or by other text encoders, or are not there.
        """
        run.upstream("data")  # where nothing has been run, this is what to run first
        made_by = origins(encoders(run.params))
        return cls(
            open_latents(latents_folder(run, stage), looks),
            open_embeddings(embeddings_folder(run, stage, made_by), looks),
        )


def clip_sets(run: runs.Run, caches: Caches, buckets: Mapping[Bucket, list[Clip]]) -> dict[Bucket, ClipSet]:
    """Clips by bucket as their caches have them; one that was set aside when they were made is left out.

    Raises:
        ConfigError: there is no latent of any of them; a latent or an embedding is damaged or of another shape than the
            others; a caption has no embedding.
    """
    root, sets = data_folder(run.params), {}
    for bucket, clips in sorted(buckets.items()):
        files = {clip: latent_file(caches.latents.folder, bucket, clip, root) for clip in clips}
        files = {clip: path for clip, path in files.items() if caches.latents.has(path)}
        if files:
            paths, captions = list(files.values()), [clip.caption for clip in files]
            check_latents(caches.latents, paths)  # better now than in the middle of training
            check_captions(caches.embeddings, captions, run.params.text)
            read = partial(read_samples, paths, captions, caches.embeddings.folder, run.params.text)
            sets[bucket] = ClipSet(tuple(clip.path.name for clip in files), read)
    if buckets and not sets:
        count, shapes = sum(map(len, buckets.values())), ", ".join(map(str, sorted(buckets)))
        raise ConfigError(f"{caches.latents.folder} has no latents of {shapes} for any of {count} clips")
    return sets


def read_samples(
    files: list[Path], captions: list[str], embeddings: Path, settings: Text, indices: np.ndarray
) -> Samples:
    """Samples of the clips at `indices` of `files` and `captions`; one that is asked for twice is read once.

    Raises:
        ConfigError: an embedding is missing, damaged or of the wrong shape; a latent is damaged.
    """
    once, places = np.unique(indices, return_inverse=True)
    read = in_threads(load_latent, [files[i] for i in once])
    mean, std = (np.stack(arrays)[places] for arrays in zip(*read, strict=True))
    text = read_embeddings(embeddings, [captions[i] for i in once], settings)
    return Samples(mean, std, tuple(array[places] for array in text))


def training_batches(run: runs.Run, stage: int, caches: Caches, world: World) -> Batches:
    """What a stage trains on.

    Raises:
        ConfigError: there are no latents, or no clip fills a video of the stage.
    """
    recipe, clips = run.params.recipes[stage], load_split(run.upstream("data"), "mixkit_train")
    images, videos = image_buckets(recipe, clips), video_buckets(recipe, clips)
    if recipe.dataset.longest > 1 and not videos:
        longest = max(clip.frames for clip in clips)
        raise ConfigError(
            f"stage {stage}: none of {len(clips)} clips has a bucket of videos; dataset.frames is "
            f"{list(recipe.dataset.frames)} and the longest clip has {longest} frames"
        )
    empty = read_embeddings(caches.embeddings.folder, [""], run.params.text)
    of_images, of_videos = (clip_sets(run, caches, buckets) for buckets in (images, videos))
    return Batches(of_images, of_videos, empty, recipe, run.params.seed, world)


def validation_batches(run: runs.Run, stage: int, caches: Caches, world: World) -> ValidationBatches:
    """What a stage is validated on: each held-out clip in its bucket, or `valid.max_clips` of them."""
    recipe, clips = run.params.recipes[stage], load_split(run.upstream("data"), "mixkit_val")
    buckets = spread(by_bucket(clips, recipe.dataset.buckets), recipe.valid.max_clips, run.params.seed)
    return ValidationBatches(clip_sets(run, caches, buckets), recipe, run.params.seed, world)


def batches(run: runs.Run, stage: int, caches: Caches, mesh: Mesh) -> tuple[Batches, ValidationBatches]:
    """What a rank trains on, and what it validates on; ranks that share tokens share samples."""
    samples = World(mesh.data_rank, mesh.data_size)
    return training_batches(run, stage, caches, samples), validation_batches(run, stage, caches, samples)


def tell(run: runs.Run, training: Batches, held_out: ValidationBatches) -> None:
    """Says before a stage starts what it will compile and see: `graphs.csv`, `clips_seen.csv`, and in a line."""
    compiled = {"training": training.graphs(), "validation": held_out.graphs()}
    if asked := training.recipe.valid.samples:
        compiled["sampling"] = sampling_graphs(training.recipe, asked)
    rows = [
        (use, samples, tokens, " ".join(map(str, buckets)))
        for use, graphs in compiled.items()
        for (samples, tokens), buckets in graphs.items()
    ]
    write_csv(run.folder / "graphs.csv", ("use", "samples", "tokens", "buckets"), rows)
    seen = [(*bucket, name, times) for bucket, name, times in training.times_seen()]
    write_csv(run.folder / "clips_seen.csv", ("frames", "height", "width", "clip", "times"), seen)
    shapes = "; ".join(
        f"{len(graphs)} of {use}: {', '.join(f'{samples} x {tokens:,} tokens' for samples, tokens in graphs)}"
        for use, graphs in compiled.items()
    )
    print(f"{run.name} compiles {len(rows)} shapes; {shapes}", file=sys.stderr)


def train(run: runs.Run, stage: int, world: World) -> None:
    """Trains one stage; rank 0 leaves `dit.safetensors`, `dit_ema.safetensors` where an average is kept, and samples.

    Samples are decoded when the weights are written: the autoencoder is not in memory while it trains.
    """
    recipe = run.params.recipes[stage]
    mesh = Mesh(world.rank, world.size, recipe.train.sequence_parallel.shards)
    dit, zero = build(run, stage, mesh)
    by_tokens = dit.by_tokens()
    caches = Caches.of(run, stage, looks=mesh.rank == 0)
    token_batches = TokenBatches(by_tokens, *batches(run, stage, caches, mesh))
    if world.is_main:
        tell(run, token_batches.training, token_batches.held_out)
    loss, settings = FlowMatchingLoss(by_tokens), recipe.train.settings
    sampled = (
        sampled_latents(run, stage, dit, asked, caches.embeddings, world) if (asked := recipe.valid.samples) else None
    )
    # after Zero: what gathers the weights of a block is recomputed with it
    dit.recompute_blocks(recipe.model.recompute_every_nth_block, keep_attention=recipe.model.not_recompute_fa)
    trainer = Trainer(
        run=run,
        zero=zero,
        loss=loss,
        terms=(),
        schedule=Schedule(
            recipe.train.steps,
            recipe.valid.frequency,
            recipe.train.save,
            settings.gradient_accumulation_steps,
            recipe.train.clip_norm,
            recipe.train.profile,
        ),
        optimizer_config=recipe.train.optimizer,
        rate_config=recipe.train.lr_scheduler,
        validate=validation(SampleLosses(by_tokens), token_batches, token_batches.held_out.counts()),
        sample=sampled,
        ema=EMA(zero, recipe.train.ema.decay) if recipe.train.ema else None,
        moment_dtype=device.compute_dtype(settings.moment_dtype),
        gradient_dtype=device.compute_dtype(settings.gradient_dtype),
        loss_scale=LossScale.first(dit.dtype),
        start=partial(start, run, stage, world) if recipe.train.resume else None,
    )
    trainer.fit(token_batches)
    with trainer.busy("saving", recipe.train.steps):
        save(run, dit, trainer.saved(), world)
    if asked and sampled:
        with trainer.busy("decoding", recipe.train.steps):
            decode_samples(run, stage, asked, sampled)


def save(run: runs.Run, dit: DiT, checkpoint: Checkpoint, world: World) -> None:
    """Rank 0 writes the whole weights from the last checkpoint, array by array; the others wait for the file."""
    names = {"weights": WEIGHTS, "ema": EMA_WEIGHTS}
    files = {run.folder / names[kind]: arrays for kind, arrays in checkpoint.files.items() if kind in names}
    for path, arrays in files.items():
        if world.is_main:
            save_dit(path, dit, arrays)
    while not all(path.is_file() for path in files):  # not in a collective, whose time is limited
        time.sleep(POLL_SECONDS)


def main(params: Params, options: argparse.Namespace) -> None:
    """`train --stage 1|2|3`."""
    with recorded(params, f"stage{options.stage}") as (run, world):
        train(run, options.stage, world)
