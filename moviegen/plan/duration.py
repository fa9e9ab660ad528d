"""How long a training stage takes: its updates, and what comes between them, spread over them.

Updates and validations are of the longest clips, so they are the most that a data set can take. Validation is counted
as forward passes at the speed of training's steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import Bucket, Params, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.flops import dit_forward, matrix_count
from moviegen.plan.memory import FLOAT32
from moviegen.plan.storage import checkpoint_bytes, training_reads
from moviegen.plan.time import Speed, Work, stage_work, update_seconds
from moviegen.plan.traffic import ELEMENT, ulysses_traffic


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage, for each update.

    Attributes:
        updates: of the stage.
        update: on the mean of the media, as often as the stage sees each.
        validation: of all held-out clips, with what is sampled, over the updates between two validations.
        waiting: for batches that are read more slowly than an update is computed; with `checkpoint` 0 where nobody
            says how fast a host's storage is.
        checkpoint: that an update waits for one that is still being written when the next is due; the copying, a
            rank's part to its host's memory, is not counted.
        is_storage_known: whether the card's description says that.
    """

    updates: int
    update: float
    validation: float
    waiting: float
    checkpoint: float
    is_storage_known: bool

    @property
    def each(self) -> float:
        """An update with all that comes with it."""
        return self.update + self.validation + self.waiting + self.checkpoint

    @property
    def total(self) -> float:
        """All updates."""
        return self.updates * self.each


def stage_duration(params: Params, stage: int, card: Card, speed: Speed, clips: int) -> Duration:
    """Of a stage that trains on so many clips; a share of them, `data.test_share`, is held out."""
    recipe = params.recipes[stage]
    update = sum(
        share * update_seconds(stage_work(params, stage, clip), card, speed)
        for clip, share in seen_shares(params, stage).items()
    )
    waiting = checkpoint = 0.0
    if card.storage:
        hosts = params.launch.worker_num // params.launch.local_worker_num
        waiting = max(0.0, training_reads(params, stage, update).update / hosts / card.storage - update)
        writing = checkpoint_bytes(params, stage).total / hosts / card.storage / recipe.train.save.interval
        checkpoint = max(0.0, writing - update)
    return Duration(
        updates=recipe.train.steps,
        update=update,
        validation=validation_seconds(params, stage, card, speed, clips) / recipe.valid.frequency,
        waiting=waiting,
        checkpoint=checkpoint,
        is_storage_known=card.storage is not None,
    )


def seen_shares(params: Params, stage: int) -> dict[Bucket, float]:
    """The longest clip of each medium that a stage trains on, and its share of the steps."""
    recipe = params.recipes[stage]
    longest = recipe.dataset.longest_clip
    if longest.frames == 1 or not recipe.sees_images:
        return {longest: 1.0}
    images = recipe.dataloader.image_ratio
    return {Bucket(1, *recipe.dataset.size): images, longest: 1 - images}


def validation_seconds(params: Params, stage: int, card: Card, speed: Speed, clips: int) -> float:
    """Of one validation: every clip that it sees at each of its fixed times, divided over the groups of shards.

    What it samples each group of shards samples whole.
    """
    recipe, clip = params.recipes[stage], params.recipes[stage].dataset.longest_clip
    groups = params.launch_of(stage).worker_num // recipe.train.sequence_parallel.shards
    pairs = validated(params, stage, clips) * recipe.valid.sampling_steps
    work = forward_work(params, stage, clip)
    seconds = -(-pairs // (groups * work.samples)) * update_seconds(work, card, speed)
    if asked := recipe.valid.samples:
        each = forward_work(params, stage, clip, samples=1 if asked.guidance in (0, 1) else 2)
        seconds += 2 * asked.prompts * asked.steps * update_seconds(each, card, speed)  # captions of both splits
    return seconds


def validated(params: Params, stage: int, clips: int) -> int:
    """How many of so many clips are held out and seen by a stage's validation."""
    held_out = max(1, round(params.data.test_share * clips))
    return min(held_out, params.recipes[stage].valid.max_clips or held_out)


def forward_work(params: Params, stage: int, clip: Bucket, samples: int | None = None) -> Work:
    """What a card does in a forward pass of so many clips, or else of a stage's micro-batch."""
    recipe, config, cards = params.recipes[stage], params.dit_config(stage), params.launch_of(stage).worker_num
    settings, shards = recipe.train.settings, recipe.train.sequence_parallel.shards
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    samples = samples or recipe.dataloader.batch_size.samples(clip)
    tokens = -(-visual_tokens(*clip) // shards) * shards
    once, lengths = dit_forward(config, tokens, params.text.lengths), params.text.lengths
    each = once + (shards - 1) * dit_forward(config, 0, lengths)  # what is of no token each shard computes for itself
    swapped = config.num_layers * ulysses_traffic(config, tokens, shards)
    return Work(
        dtype=dtype,
        products=samples * (each.projections + each.feed_forward) / shards,
        attention=samples * each.attention / shards,
        samples=samples,
        gathered=FLOAT32 * matrix_count(config) if settings.zero_stage == 3 and cards > 1 else 0.0,
        swapped=samples * ELEMENT[dtype] * swapped,
        cards=cards,
        shards=shards,
    )
