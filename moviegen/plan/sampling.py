"""What sampling takes, of the programs that sample: how often the transformer is asked, what a card holds, how long.

Guidance asks it with and without the text, in one batch of twice as many samples. One card samples a batch by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from moviegen.config import Bucket, Params, Sample, visual_tokens
from moviegen.plan.cards import Card
from moviegen.plan.flops import Flops, dit_forward, parameter_count, position_count, tae_parameter_count, tiled_decode
from moviegen.plan.memory import FLOAT32, HALF, PATCH_WIDTH, Memory
from moviegen.plan.tae_memory import DECODING, tae_decoding_memory
from moviegen.plan.time import Speed, Work, update_seconds

GUIDED = 2
SAMPLING = "in a block of the guided transformer"
SCHEDULES = len(get_args(Sample.model_fields["schedule"].annotation))


@dataclass(frozen=True)
class Sampling:
    """What one program samples.

    Attributes:
        stage: whose transformer it asks.
        clip: frames and pixels of a sample.
        samples: at once.
        evaluations: of the guided velocity, a batch.
        batches: as many as are full, of the captions that the parameters ask for; paraphrases come on top.
        decodes: into pictures.
    """

    stage: int
    clip: Bucket
    samples: int
    evaluations: int
    batches: int
    decodes: bool


def samplings(params: Params) -> dict[str, Sampling]:
    """What each program of the road samples, by its name."""
    sample, retrieval, error = params.sample, params.sample.retrieval, params.sample.schedule_error
    clips = {stage: recipe.dataset.longest_clip for stage, recipe in params.recipes.items()}
    evaluations = error.reference_steps + SCHEDULES * sum(error.steps)
    return {
        "sample": Sampling(
            3, Bucket(sample.frames, *sample.size), sample.batch_size, sample.steps,
            -(-2 * sample.num_prompts // sample.batch_size), decodes=True,
        ),
        "retrieval": Sampling(
            3, clips[3], retrieval.batch_size, retrieval.steps, -(-retrieval.prompts // retrieval.batch_size),
            decodes=False,
        ),
        "schedule-error": Sampling(2, clips[2], error.prompts, evaluations, 1, decodes=False),
    }  # fmt: skip


def sampling_flops(params: Params, sampling: Sampling) -> Flops:
    """Of one batch."""
    config, tokens = params.dit_config(sampling.stage), visual_tokens(*sampling.clip)
    velocity = GUIDED * sampling.samples * dit_forward(config, tokens, params.text.lengths)
    flops = sampling.evaluations * velocity
    if sampling.decodes:
        flops += sampling.samples * tiled_decode(params.tae.model, params.tae.tiling, sampling.clip)
    return flops


def sampling_seconds(params: Params, sampling: Sampling, card: Card, speed: Speed) -> float:
    """Of one batch, decoding left out: by the speed of training's steps, which no published row holds sampling to."""
    config, tokens = params.dit_config(sampling.stage), visual_tokens(*sampling.clip)
    dtype = params.recipes[sampling.stage].train.settings.dtype
    velocity = GUIDED * sampling.samples * dit_forward(config, tokens, params.text.lengths)
    work = Work(
        dtype="bfloat16" if dtype == "auto" else dtype,
        products=velocity.projections + velocity.feed_forward,
        attention=velocity.attention,
        samples=sampling.samples,
    )
    return sampling.evaluations * update_seconds(work, card, speed)


def sampling_memory(params: Params, sampling: Sampling) -> Memory:
    """A card that samples a batch of clips, or decodes one of them, whichever needs more.

    Weights are float32, and in the arithmetic's type as well: on a card all are cast before the first block. A block
    has its sum, its norm and the positions, 3 D, and three activations of F. The transformer stays while clips are
    decoded, a tile at a time.
    """
    config, is_card, clip = params.dit_config(sampling.stage), params.launch.device == "Ascend", sampling.clip
    samples, tokens, element = GUIDED * sampling.samples, visual_tokens(*clip), HALF if is_card else FLOAT32
    transformer = FLOAT32 * (parameter_count(config) + position_count(config))
    weights = transformer + (FLOAT32 * tae_parameter_count(params.tae.model) if sampling.decodes else 0)
    text = sum(params.text.lengths)
    parts = {
        "weights": weights,
        "weight casts": element * parameter_count(config) if is_card else 0,
        "live block": samples * tokens * element * 3 * (config.width + config.ffn_width),
        "text": samples * (element * text * config.width + (tokens * text if is_card else 0)),
        "ends": 4 * FLOAT32 * samples * tokens * PATCH_WIDTH,
    }
    activation = ("a feed-forward activation (2 B, N, F)", samples * tokens * element * config.ffn_width)
    moments = [Memory(SAMPLING, parts, activation)]
    if sampling.decodes:
        decoding = tae_decoding_memory(params, params.tae.tiling.largest(*clip))
        moments.append(Memory(DECODING, {**decoding.parts, "weights": weights}, decoding.largest))
    return max(moments, key=lambda memory: memory.total)


def report_memory(params: Params) -> Memory:
    """Of sampling the report's clips."""
    return sampling_memory(params, samplings(params)["sample"])
