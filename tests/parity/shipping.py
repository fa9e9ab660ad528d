"""Ships what `tests.parity.pretraining` trained: `params/weights/`, scored by MindSpore on this machine.

    python -m tests.parity.shipping tae FOLDER --config pretrain
    python -m tests.parity.shipping transformer FOLDER --config small

The manifest beside a file says of it what the twin's record says (program, parameters, versions, machine, seconds),
what came before it, and what MindSpore finds: for the autoencoder as `moviegen ship` does, on clips that were never
trained on; for the transformer its loss on held-out clips, and what clips generated for captions and paraphrases are
nearest to, as `moviegen retrieval` does.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moviegen import config, device, runs
from moviegen.config import Params, project_root
from moviegen.data import assets
from moviegen.data.crops import centre_views, spread
from moviegen.data.embeddings import embeddings_folder, read_embeddings
from moviegen.data.latents import load_latent
from moviegen.data.quarantine import Quarantine
from moviegen.data.splits import load_split
from moviegen.device.world import World
from moviegen.dit.inference import load_described
from moviegen.dit.model import DiT
from moviegen.dit.weights import save_dit
from moviegen.flow import schedule
from moviegen.flow.path import SampleLosses
from moviegen.flow.sampler import Sampler, batches
from moviegen.programs import retrieval, ship, train_dit
from moviegen.runs.files import checksum, read_json, write_json
from moviegen.runs.machine import git_commit, machine, versions
from moviegen.runs.weights import assign, load_arrays
from moviegen.tae.factors import measure_latents
from moviegen.tae.model import TAE
from moviegen.tae.weights import save_tae
from moviegen.text.encoders import encoders, origins
from tests.parity.names import RECORD, WEIGHTS, torch_name

if TYPE_CHECKING:  # importing it here would come before moviegen has set its environment
    import mindspore as ms

STAGE = retrieval.STAGE
OURS = "ours.safetensors"  # the weights by our names
MEND = "train again"


def fill(parameters: dict[str, ms.Parameter], path: Path) -> None:
    """Gives a network the weights of its twin, whose temporal kernels have their axes of length 1 elsewhere."""
    arrays, _ = load_arrays(path)
    given = {name: arrays[torch_name(name)].reshape(parameter.shape) for name, parameter in parameters.items()}
    assign(parameters, given, str(path))


def write_manifest(weights: Path, folder: Path, data: runs.Run, before: dict[str, Any], scores: dict[str, Any]) -> None:
    record = read_json(folder / RECORD, MEND)
    kept = {name: record[name] for name in ("program", "parameters", "versions", "machine", "steps", "seconds")}
    scored = {"versions": versions(), "machine": machine()}
    manifest = kept | {"commit": git_commit(), "upstream": {"data": data.name}, "sha256": checksum(weights)}
    write_json(weights.with_suffix(".json"), manifest | {"before": before, "scored": scored, "scores": scores})


def ship_autoencoder(folder: Path, params: Params) -> None:
    """With the weights that it started from, and all that is before these, before it."""
    data, stage = runs.find(params, "tae-mixkit").upstream("data"), params.tae.mixkit
    start = read_json((project_root() / ship.WEIGHTS / "tae.json"), "check it out again")
    tae = TAE(params.tae.model)
    fill(dict(tae.parameters_and_names()), folder / WEIGHTS)
    held_out = spread(load_split(data, "mixkit_val"))
    views = centre_views(held_out, stage.frames, stage.size, Quarantine(folder / "quarantine.csv"))
    save_tae(folder / OURS, tae, measure_latents(tae, views))
    weights = ship.write_weights("tae", folder / OURS)
    scores = ship.autoencoder_scores(weights, load_split(data, "ucf101_test"), params)
    before = start["before"] | {start["program"]: ship._kept(start)}
    write_manifest(weights, folder, data, before, scores)


def ship_transformer(folder: Path, params: Params) -> None:
    run = runs.find(params, "retrieval")
    dit = DiT(params.dit_config(STAGE))
    fill(dict(dit.parameters_and_names()), folder / WEIGHTS)
    save_dit(folder / OURS, dit)
    weights = ship.write_weights(ship.TRANSFORMER, folder / OURS)
    before: dict[str, Any] = {}
    for name in ("latents", "text"):
        made = run.upstream(name).folder
        before |= ship.lineage(made) | {name: ship._kept(read_json(made / "manifest.json", MEND))}
    write_manifest(weights, folder, run.upstream("data"), before, transformer_scores(load_described(weights), run))


def transformer_scores(dit: DiT, run: runs.Run) -> dict[str, Any]:
    return {"retrieval": retrieval_scores(dit, run), "validation_loss": validation_loss(dit, run)}


def validation_loss(dit: DiT, run: runs.Run) -> float:
    """As stage 3 measures it."""
    stage, tokens = runs.find(run.params, f"stage{STAGE}"), dit.by_tokens()
    caches = train_dit.Caches.of(stage, STAGE)
    held_out = train_dit.validation_batches(stage, STAGE, caches, World())
    training = train_dit.training_batches(stage, STAGE, caches, World())
    loss = train_dit.validation(
        SampleLosses(tokens), train_dit.TokenBatches(tokens, training, held_out), held_out.counts()
    )
    return loss(lambda **done: None)["loss"]


def retrieval_scores(dit: DiT, run: runs.Run) -> dict[str, Any]:
    """As `moviegen retrieval` measures and sums them up."""
    params, settings = run.params, run.params.sample.retrieval
    buckets = retrieval.training_clips(run)
    questions = retrieval.questions_of(buckets, params)
    embeddings = embeddings_folder(run, STAGE, origins(encoders(params)))
    embed = functools.partial(read_embeddings, embeddings, settings=params.text)
    sampler, times = Sampler(dit, embed, settings.guidance, next(iter(buckets))), schedule.linear(settings.steps)
    asked = [question for those in questions.values() for question in those]
    captions = [clip.caption for clips in buckets.values() for clip in clips]
    distance, last = np.full((len(asked), len(captions)), np.inf), 0
    for bucket, clips in buckets.items():
        first, last, at_size = last, last + len(clips), sampler.at(bucket)
        means = [load_latent(path)[0] for path in clips.values()]
        for batch in batches([question.prompt for question in questions[bucket]], settings.batch_size):
            rows = [prompt.index for prompt in batch]
            distance[rows, first:last] = retrieval.distances(at_size(batch, times), means)
    summary = {"clips": len(captions), "buckets": list(map(str, buckets)), "steps": settings.steps}
    summary["guidance"], scenes = settings.guidance, retrieval.scenes_of(params)
    for kind in retrieval.KINDS:
        those = [question for question in asked if question.kind == kind]
        rows = [question.prompt.index for question in those]
        wanted = [question.caption for question in those]
        if those:
            summary[kind] = retrieval.summarise(distance[rows], wanted, captions, scenes)[0]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tae", "transformer"))
    parser.add_argument("folder", type=Path, help="where `tests.parity.pretraining` left its result")
    parser.add_argument("--config", default="small")
    options = parser.parse_args()
    params = assets.provided(lambda **given: config.load(options.config, given))
    device.start(params.seed)
    {"tae": ship_autoencoder, "transformer": ship_transformer}[options.what](options.folder, params)


if __name__ == "__main__":
    main()
