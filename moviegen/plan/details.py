"""Every number of a stage's plan, of each bucket that it sees: what `plan --json` writes, and `plan --stage` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moviegen.config import Bucket, Params, by_graph, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.cost import stage_cost
from moviegen.plan.dit_memory import training_memory
from moviegen.plan.duration import stage_duration
from moviegen.plan.memory import Memory, host_memory
from moviegen.plan.storage import checkpoint_bytes, data_caches, training_reads
from moviegen.plan.time import Speed, micro_batch_seconds, stage_work, update_seconds
from moviegen.plan.traffic import stage_traffic


def stage_details(params: Params, stage: int, card: Card, speed: Speed, clips: int) -> dict[str, Any]:
    """Bytes, FLOPs and seconds of a stage.

    Args:
        clips: of its data set, each with a caption.
    """
    cost, recipe = stage_cost(params, stage), params.recipes[stage]
    duration, host = stage_duration(params, stage, card, speed, clips), host_memory(params, stage)
    checkpoint, caches = checkpoint_bytes(params, stage), data_caches(params, clips)
    buckets = [bucket_details(params, stage, clip, card, speed) for clip in seen_buckets(params, stage)]
    return {
        "stage": stage,
        "cards": params.launch_of(stage).worker_num,
        "updates": recipe.train.steps,
        "parameters": cost.parameters,
        "positions": cost.positions,
        "buckets": buckets,
        "graphs": [
            {"samples": samples, "tokens": tokens, "buckets": list(map(str, shared))}
            for (samples, tokens), shared in training_graphs(params, stage).items()
        ],
        "seconds_an_update": asdict(duration) | {"all": duration.each},
        "seconds_in_all": _interval(duration.total, speed),
        "host_bytes": asdict(host),
        "checkpoint_bytes": {"one": checkpoint.total, "most_at_once": checkpoint.on_disk, "kept": checkpoint.kept},
        "latents_bytes": sum(caches.latents.values()),
        "embeddings_bytes": sum(caches.embeddings.values()),
        "reading": asdict(training_reads(params, stage, duration.update)),
    }


def seen_buckets(params: Params, stage: int) -> list[Bucket]:
    """The buckets of a stage, fewest tokens first; of images only where it sees any."""
    recipe = params.recipes[stage]
    seen = [clip for clip in recipe.dataset.buckets if clip.frames > 1 or recipe.sees_images]
    return sorted(seen, key=lambda clip: (visual_tokens(*clip), clip))


def training_graphs(params: Params, stage: int) -> dict[tuple[int, int], list[Bucket]]:
    """The buckets of a stage by the samples and tokens that a graph is compiled for, the most there can be.

    A run compiles those whose buckets have clips; with several micro-batches one graph more finishes an update.
    """
    batch = params.recipes[stage].dataloader.batch_size
    return by_graph({clip: batch.samples(clip) for clip in seen_buckets(params, stage)})


def bucket_details(params: Params, stage: int, clip: Bucket, card: Card, speed: Speed) -> dict[str, Any]:
    """Of micro-batches and updates that see clips of one bucket."""
    work, cost = stage_work(params, stage, clip), stage_cost(params, stage, clip)
    return {
        "clip": str(clip),
        "samples_a_micro_batch": work.samples,
        "samples_an_update": work.samples_an_update,
        "tokens": cost.tokens,
        "flops_an_update": vars(cost.arithmetic) | {"all": cost.flops},
        "memory_bytes": memory_details(training_memory(params, stage, clip)),
        "exchanges": [asdict(row) for row in stage_traffic(params, stage, clip)],
        "seconds_a_micro_batch": _interval(micro_batch_seconds(work, card, speed), speed),
        "seconds_an_update": _interval(update_seconds(work, card, speed), speed),
    }


def memory_details(memory: Memory) -> dict[str, Any]:
    """Bytes of a card by part, at its fullest moment."""
    largest, size = memory.largest
    return {
        "moment": memory.moment,
        "all": memory.total,
        "parts": dict(memory.parts),
        "largest_tensor": {"name": largest, "bytes": size},
    }


def _interval(seconds: float, speed: Speed) -> list[float]:
    """Likely, and where a measurement would lie that is no further off than rows that were left out of the fit."""
    return [seconds, *speed.interval(seconds)]
