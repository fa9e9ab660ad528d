"""What ranks send each other in an update, by collective, by counting.

A row is what Ascend does natively. On CPU there are all-reduce and all-gather over all ranks only, and the others are
built of these (`on_cpu`): the same calls, more bytes. tests/parallel/test_traffic_counted.py counts in graphs of jobs.

Validation and checkpoints come on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moviegen.config import Bucket, DiTConfig, Params, Recipe, visual_tokens
from moviegen.plan.flops import ADALN_VECTORS, patch_width, recomputed_blocks

ELEMENT = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes
ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, ALL_TO_ALL = "all-gather", "reduce-scatter", "all-reduce", "all-to-all"
MICRO_BATCH, UPDATE = "micro-batch", "update"
JOB, SHARD_GROUP = "job", "shard group"


@dataclass(frozen=True)
class Exchange:
    """All calls of a collective for one purpose.

    Attributes:
        collective: all-gather, reduce-scatter, all-reduce or all-to-all.
        purpose: what passes.
        dtype: as it passes.
        moment: of what its calls and bytes are, a micro-batch or, beside its micro-batches, an update.
        group: who takes part, all ranks of the job or those of a shard group.
        ranks: how many they are.
        calls: of each rank.
        size: bytes of the whole tensors of all calls: what a gather gives, what a reduction is given, padding too. An
            all-to-all has no whole tensor: what one rank holds before it, and as much after it.
    """

    collective: str
    purpose: str
    dtype: str
    moment: str
    group: str
    ranks: int
    calls: int
    size: int

    @property
    def passes(self) -> int:
        """How often the tensor passes: an all-reduce adds up and scatters, then gathers."""
        return 2 if self.collective == ALL_REDUCE else 1

    @property
    def sent(self) -> float:
        """Bytes that one rank sends: of each pass all but its own part."""
        return self.passes * self.size * (self.ranks - 1) / self.ranks


@dataclass(frozen=True)
class Weights:
    """Numbers in each weight of the transformer, as ZeRO 3 tells them apart.

    Attributes:
        first: matrices of layers that read the latent or the text, whose gradients nobody asks for.
        time: the two matrices that embed the time, in float32 whatever the arithmetic; the first reads sinusoids.
        block: matrices of one block.
        shared: the other matrices.
        whole: norms, modulation and position tables, which are no factors of products.
    """

    first: tuple[int, ...]
    time: tuple[int, int]
    block: tuple[int, ...]
    shared: tuple[int, ...]
    whole: tuple[int, ...]


def stage_traffic(params: Params, stage: int, clip: Bucket | None = None, is_compiled: bool = False) -> list[Exchange]:
    """`recipe_traffic` of a stage; without a clip, of its longest videos, or images if it has only those."""
    recipe, launch = params.recipes[stage], params.launch_of(stage)
    clip = clip or recipe.dataset.longest_clip
    auto = "bfloat16" if launch.device == "Ascend" else "float32"
    dtype = auto if recipe.train.settings.dtype == "auto" else recipe.train.settings.dtype
    if launch.device == "CPU" and dtype == "bfloat16":
        dtype = "float32"  # products round their factors, and nothing else does
    return recipe_traffic(params.dit_config(stage), recipe, launch.worker_num, clip, dtype, is_compiled=is_compiled)


def recipe_traffic(
    config: DiTConfig,
    recipe: Recipe,
    cards: int,
    clip: Bucket,
    dtype: str,
    weight_bytes: int = ELEMENT["float32"],
    is_compiled: bool = False,
) -> list[Exchange]:
    """What each of so many cards exchanges; one card, nothing.

    Args:
        config: the transformer.
        clip: frames and pixels of a sample; one frame is an image.
        dtype: of the arithmetic.
        weight_bytes: of a gradient and of a weight that is no matrix: float32 here, whatever the arithmetic.
        is_compiled: by the CPU's compiled operators, which are not computed again, and gather the weights of first
            layers once more, as they make both gradients of every product.
    """
    if cards == 1:
        return []
    again = 0 if is_compiled else recomputed_blocks(config, recipe.model.recompute_every_nth_block)
    settings, batch = recipe.train.settings, recipe.dataloader.batch_size
    samples = batch.samples(clip)
    shards = recipe.train.sequence_parallel.shards
    weights = weight_traffic(config, settings.zero_stage, cards, dtype, weight_bytes, is_compiled)
    return weights + token_traffic(config, visual_tokens(*clip), samples, shards, again, dtype) + [
        Exchange(ALL_REDUCE, "loss", "float32", UPDATE, JOB, cards, 1, ELEMENT["float32"])
    ]  # fmt: skip


def weight_traffic(
    config: DiTConfig,
    zero_stage: int,
    cards: int,
    dtype: str = "float32",
    weight_bytes: int = ELEMENT["float32"],
    is_compiled: bool = False,
) -> list[Exchange]:
    """Of weights and their gradients, and the gradients' norm, of which ranks have parts; see `parallel.zero`.

    A block that is recomputed gathers its matrices no more often than another: once forward, once for its gradients.

    Args:
        dtype: of the arithmetic, in which matrices are gathered but those of the time's embedding.
        weight_bytes, is_compiled: see `recipe_traffic`.
    """
    found, layers = weights_of(config), config.num_layers
    matrices = found.first + layers * found.block + found.shared
    everything = matrices + found.time + found.whole
    weights = {size: name for name, size in ELEMENT.items()}[weight_bytes]
    of_matrices = min(dtype, weights, key=lambda name: ELEMENT[name])

    def row(collective: str, purpose: str, moment: str, tensors: Sequence[int], dtype: str = weights) -> Exchange:
        parts = 1 if collective == ALL_REDUCE else cards  # others divide a tensor, padded to as many equal parts
        size = ELEMENT[dtype] * sum(-(-count // parts) * parts for count in tensors)
        return Exchange(collective, purpose, dtype, moment, JOB, cards, len(tensors), size)

    if zero_stage == 0:
        return [row(ALL_REDUCE, "gradients", UPDATE, everything)]
    summed = [
        row(REDUCE_SCATTER, "gradients", UPDATE if zero_stage == 1 else MICRO_BATCH, everything),
        Exchange(ALL_REDUCE, "square of the gradients' norm", "float32", UPDATE, JOB, cards, 1, ELEMENT["float32"]),
    ]
    if zero_stage < 3:
        return [
            *summed,
            row(ALL_GATHER, "updated matrices", UPDATE, matrices, of_matrices),
            row(ALL_GATHER, "other updated weights", UPDATE, found.time + found.whole),
        ]
    backward = matrices if is_compiled else layers * found.block + found.shared
    of_time = found.time + (found.time if is_compiled else found.time[1:])
    return [
        row(ALL_GATHER, "weights of products, forward", MICRO_BATCH, matrices, of_matrices),
        row(ALL_GATHER, "weights of products, backward", MICRO_BATCH, backward, of_matrices),
        row(ALL_GATHER, "weights that embed the time", MICRO_BATCH, of_time),
        *summed,
        row(ALL_GATHER, "other updated weights", UPDATE, found.whole),
    ]


def token_traffic(config: DiTConfig, tokens: int, samples: int, shards: int, again: int, dtype: str) -> list[Exchange]:
    """Of Ulysses' shard groups in a micro-batch; see `parallel.ulysses`.

    Args:
        tokens: of a sample; padded here to as many on each rank.
        samples: of a shard group's micro-batch.
        again: blocks that are recomputed.
    """
    if shards == 1:
        return []
    own, layers = samples * -(-tokens // shards), config.num_layers
    one = own * config.width * ELEMENT[dtype]

    def row(purpose: str, calls: int, tensors: int) -> Exchange:
        return Exchange(ALL_TO_ALL, purpose, dtype, MICRO_BATCH, SHARD_GROUP, shards, calls, calls * tensors * one)

    velocity = shards * own * patch_width(config) * ELEMENT["float32"]
    return [
        row("queries, keys and values to heads", layers + again, 3),
        row("attention to tokens", layers + again, 1),
        row("gradient of attention to heads", layers, 1),
        row("gradients of queries, keys and values to tokens", layers, 3),
        Exchange(ALL_GATHER, "velocity of all tokens", "float32", MICRO_BATCH, SHARD_GROUP, shards, 1, velocity),
    ]


def weights_of(config: DiTConfig) -> Weights:
    """Of the transformer, its position tables too."""
    width, hidden, patch = config.width, config.ffn_width, patch_width(config)
    texts = config.embedding_widths
    norms = (width, width, ADALN_VECTORS * width)  # of a block, with its table of modulation
    return Weights(
        first=(patch * width, *(text * width for text in texts)),
        time=(config.frequency_width * width, width**2),
        block=8 * (width**2,) + 3 * (width * hidden,),
        shared=(ADALN_VECTORS * width**2, width * patch),
        whole=config.num_layers * norms
        + (*(width for _ in texts), width, 2 * width)
        + tuple(rows * width for rows in config.max_size),
    )


def on_cpu(row: Exchange, workers: int) -> Exchange:
    """A row by the two collectives of the CPU, all-reduce and all-gather over all ranks: more bytes."""
    if row.collective == REDUCE_SCATTER:  # `SlicedSum`: an all-reduce, of which a rank keeps its part
        return replace(row, collective=ALL_REDUCE)
    if row.collective == ALL_TO_ALL:  # `AllToAll`: all get all that others hold
        return replace(row, collective=ALL_GATHER, group=JOB, ranks=workers, size=workers * row.size)
    if row.group == SHARD_GROUP:  # `GroupGather`: of all groups
        return replace(row, group=JOB, ranks=workers, size=workers // row.ranks * row.size)
    return row


def by_collective(rows: Iterable[Exchange]) -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and bytes by collective and type of the numbers."""
    calls, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows:
        calls[row.collective, row.dtype] += row.calls
        sizes[row.collective, row.dtype] += row.size
    return {key: (calls[key], sizes[key]) for key in calls}


def through_job(rows: Iterable[Exchange], moment: str) -> int:
    """Bytes of the tensors that pass through all ranks of the job, an all-reduce's twice."""
    return sum(row.passes * row.size for row in rows if row.group == JOB and row.moment == moment)


def sent_in_shard_group(rows: Iterable[Exchange]) -> float:
    """Bytes that a rank sends to the others of its shard group in a micro-batch."""
    return sum(row.sent for row in rows if row.group == SHARD_GROUP)


def ulysses_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block's self-attention: four all-to-alls of its N/P tokens, less its own part."""
    return round(4 * visual * config.width / shards * (shards - 1) / shards)


def gathered_traffic(config: DiTConfig, visual: int, shards: int) -> int:
    """Elements a rank sends in one block where tokens are gathered and scattered instead (Megatron-LM): ~4 N D."""
    return round(4 * visual * config.width * (shards - 1) / shards)
