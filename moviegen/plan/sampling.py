"""What sampling takes, of the programs that sample: how often the transformer is asked, what a card holds, how long.

Guidance asks it with and without the text, in one batch of twice as many samples; at 1 and 0, and where it reuses the
last difference of both, for one of them. `sample.shards` cards at most share the tokens of a clip; at ZeRO 3 each card
holds its part of the matrices, and those of two blocks whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from moviegen.config import Bucket, DiTConfig, Params, Sample, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.flops import (
    Flops,
    block_matrix_count,
    dit_forward,
    matrix_count,
    parameter_count,
    patch_width,
    position_count,
    tae_parameter_count,
    tiled_decode,
)
from moviegen.plan.memory import FLOAT32, HALF, PATCH_WIDTH, Memory
from moviegen.plan.tae_memory import DECODING, tae_decoding_memory
from moviegen.plan.time import Speed, Work, update_seconds
from moviegen.plan.traffic import (
    ALL_GATHER,
    ALL_TO_ALL,
    ELEMENT,
    JOB,
    MICRO_BATCH,
    SHARD_GROUP,
    Exchange,
    sent_in_shard_group,
    through_job,
    weights_of,
)

SAMPLING = "in a block of the guided transformer"
SCHEDULES = len(get_args(Sample.model_fields["schedule"].annotation))


@dataclass(frozen=True)
class Sampling:
    """What one program samples.

    Attributes:
        stage: whose transformer it asks.
        clip: frames and pixels of a sample.
        samples: at once.
        calls: of the transformer, a batch: how many, and for how many velocities of each sample.
        batches: as many as are full, of the captions that the parameters ask for; paraphrases come on top, and the two
            ways that `sample` keeps of one batch.
        decodes: into pictures.
    """

    stage: int
    clip: Bucket
    samples: int
    calls: tuple[tuple[int, int], ...]
    batches: int
    decodes: bool

    @property
    def velocities(self) -> int:
        """Of each sample at once, at most."""
        return max(velocities for _, velocities in self.calls)


@dataclass(frozen=True)
class Share:
    """How the cards of a job divide what is sampled.

    Attributes:
        cards: of the job.
        shards: that share the tokens of a clip.
        parts: of each matrix, on as many cards.
    """

    cards: int
    shards: int
    parts: int

    @property
    def groups(self) -> int:
        """Batches that are sampled at once."""
        return self.cards // self.shards


def sampling_share(params: Params, stage: int) -> Share:
    """Of what a stage's transformer samples."""
    cards, config = params.inference_launch.worker_num, params.dit_config(stage)
    shards = params.sample.shards_among(cards, config.num_heads)
    return Share(cards, shards, cards if params.sample.zero_stage == 3 else 1)


def samplings(params: Params) -> dict[str, Sampling]:
    """What each program of the road samples, by its name."""
    sample, retrieval, error = params.sample, params.sample.retrieval, params.sample.schedule_error
    clips = {stage: recipe.dataset.longest_clip for stage, recipe in params.recipes.items()}
    whole = guided_calls(error.reference_steps + SCHEDULES * sum(error.steps), sample.guidance)
    gated = [call for steps in error.steps for call in guided_calls(steps, sample.guidance, error.guidance_gate)]
    return {
        "sample": Sampling(
            3, Bucket(sample.frames, *sample.size), sample.batch_size,
            guided_calls(sample.steps, sample.guidance, sample.guidance_gate),
            -(-2 * sample.num_prompts // sample.batch_size), decodes=True,
        ),
        "retrieval": Sampling(
            3, clips[3], retrieval.batch_size, guided_calls(retrieval.steps, retrieval.guidance),
            -(-retrieval.prompts // retrieval.batch_size), decodes=False,
        ),
        "schedule-error": Sampling(
            2, clips[2], error.prompts, whole + (tuple(gated) if sample.guidance not in (0, 1) else ()), 1,
            decodes=False,
        ),
    }  # fmt: skip


def guided_calls(steps: int, guidance: float, gate: float = 1.0) -> tuple[tuple[int, int], ...]:
    """Calls of the transformer for so many steps: how many, and for how many velocities; see `flow.sampler`."""
    if guidance in (0, 1):
        return ((steps, 1),)
    full = steps if gate == 1 else max(1, math.ceil(gate * steps))
    return ((full, 2), (steps - full, 1)) if full < steps else ((steps, 2),)


def sampling_flops(params: Params, sampling: Sampling) -> Flops:
    """Of one batch; what cards that share tokens compute each for itself is counted once."""
    config, tokens = params.dit_config(sampling.stage), visual_tokens(*sampling.clip)
    asked = sampling.samples * sum(calls * velocities for calls, velocities in sampling.calls)
    flops = asked * dit_forward(config, tokens, params.text.lengths)
    if sampling.decodes:
        flops += sampling.samples * tiled_decode(params.tae.model, params.tae.tiling, sampling.clip)
    return flops


def sampling_seconds(params: Params, sampling: Sampling, card: Card, speed: Speed) -> float:
    """Of one batch, decoding left out: by the speed of training's steps, which no published row holds sampling to."""
    works = [(calls, sampling_work(params, sampling, velocities)) for calls, velocities in sampling.calls]
    return sum(calls * update_seconds(work, card, speed) for calls, work in works)


def sampling_work(params: Params, sampling: Sampling, velocities: int) -> Work:
    """What a card does in one call of the transformer for so many velocities of each sample."""
    config, share = params.dit_config(sampling.stage), sampling_share(params, sampling.stage)
    lengths = params.text.lengths
    samples, tokens = velocities * sampling.samples, -(-visual_tokens(*sampling.clip) // share.shards) * share.shards
    whole = dit_forward(config, tokens, lengths)
    each = whole + (share.shards - 1) * dit_forward(config, 0, lengths)  # of no token: by each card for itself
    exchanges = sampling_traffic(params, sampling, velocities)
    return Work(
        dtype=_dtype(params, sampling),
        products=samples * (each.projections + each.feed_forward) / share.shards,
        attention=samples * each.attention / share.shards,
        samples=samples,
        gathered=through_job(exchanges, MICRO_BATCH),
        swapped=sent_in_shard_group(exchanges),
        cards=share.cards,
        shards=share.shards,
    )


def sampling_traffic(params: Params, sampling: Sampling, velocities: int) -> list[Exchange]:
    """What ranks send each other in one call of the transformer for so many velocities of each sample.

    Padding of divided weights is left out: there is none where the ranks divide the width.
    """
    config, share = params.dit_config(sampling.stage), sampling_share(params, sampling.stage)
    dtype, rows, layers = _dtype(params, sampling), [], config.num_layers
    if share.parts > 1:
        others = 3 + len(config.embedding_widths)  # of the latent, the texts, the modulation, the last layer
        matrices, time = layers * len(weights_of(config).block) + others, time_count(config)
        group = (MICRO_BATCH, JOB, share.parts)
        size = ELEMENT[dtype] * (matrix_count(config) - time)
        rows += [
            Exchange(ALL_GATHER, "weights of products", dtype, *group, matrices, size),
            Exchange(ALL_GATHER, "weights that embed the time", "float32", *group, 2, FLOAT32 * time),
        ]
    if share.shards > 1:
        own = velocities * sampling.samples * -(-visual_tokens(*sampling.clip) // share.shards)
        one, velocity = own * config.width * ELEMENT[dtype], share.shards * own * patch_width(config) * FLOAT32
        group = (MICRO_BATCH, SHARD_GROUP, share.shards)
        rows += [
            Exchange(ALL_TO_ALL, "queries, keys and values to heads", dtype, *group, layers, 3 * layers * one),
            Exchange(ALL_TO_ALL, "attention to tokens", dtype, *group, layers, layers * one),
            Exchange(ALL_GATHER, "velocity of all tokens", "float32", *group, 1, velocity),
        ]
    return rows


def sampling_memory(params: Params, sampling: Sampling) -> Memory:
    """A card that samples a batch of clips, or decodes one of them, whichever needs more.

    Matrices are in the arithmetic's type alone, but for the time's; other weights are float32. A block has its
    sum, D in float32, its norm and the positions, 2 D, and three activations of F; or, where tokens are shared,
    queries, keys and values before they are swapped, as they pass and after. The transformer stays while clips are
    decoded, a tile at a time.
    """
    config, is_card, clip = params.dit_config(sampling.stage), params.launch.device == "Ascend", sampling.clip
    share, element = sampling_share(params, sampling.stage), HALF if is_card else FLOAT32
    samples, tokens = sampling.velocities * sampling.samples, visual_tokens(*clip)
    own, width, hidden = -(-tokens // share.shards), config.width, config.ffn_width
    weights = transformer_bytes(params, sampling.stage)
    weights += FLOAT32 * tae_parameter_count(params.tae.model) if sampling.decodes else 0
    text, swapped = sum(params.text.lengths), 9 * width if share.shards > 1 else 0
    gathered = min(2, config.num_layers) * block_matrix_count(config) + width * hidden  # and the one that is being cut
    parts = {
        "weights": weights,
        "gathered weights": element * gathered if share.parts > 1 else 0,
        "live block": samples * own * (FLOAT32 * width + element * (2 * width + max(3 * hidden, swapped))),
        "text": samples * (element * text * width + (own * text if is_card else 0)),
        "ends": 4 * FLOAT32 * samples * tokens * PATCH_WIDTH,
    }
    activation = ("a feed-forward activation (2 B, N, F)", samples * own * element * hidden)
    moments = [Memory(SAMPLING, parts, activation)]
    if sampling.decodes:
        decoding = tae_decoding_memory(params, params.tae.tiling.largest(*clip))
        moments.append(Memory(DECODING, {**decoding.parts, "weights": weights}, decoding.largest))
    return max(moments, key=lambda memory: memory.total)


def transformer_bytes(params: Params, stage: int) -> int:
    """Of a stage's transformer as a card holds it that only samples; padding left out."""
    config, parts = params.dit_config(stage), sampling_share(params, stage).parts
    element = HALF if params.launch.device == "Ascend" else FLOAT32
    time, matrices = time_count(config), matrix_count(config)
    others = parameter_count(config) + position_count(config) - matrices
    return (element * (matrices - time) + FLOAT32 * time) // parts + FLOAT32 * others


def time_count(config: DiTConfig) -> int:
    """Numbers in the two matrices that embed the time, in float32 whatever the arithmetic."""
    return config.width * (config.frequency_width + config.width)


def report_memory(params: Params) -> Memory:
    """Of sampling the report's clips."""
    return sampling_memory(params, samplings(params)["sample"])


def _dtype(params: Params, sampling: Sampling) -> str:
    dtype = params.recipes[sampling.stage].train.settings.dtype
    return "bfloat16" if dtype == "auto" else dtype
