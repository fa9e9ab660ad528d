"""What a card holds from step to step, by counting; what it holds at the fullest moment, in words; and its host.

`dit_memory` and `tae_memory` count the fullest moment. They count the tensors of the graph that MindSpore makes of the
code, in the order in which it computes them: breadth first, what can be computed at once before what must wait, by
default on a card as on CPU. Nothing is counted for what the memory's pool loses between tensors, the work space of
MindSpore's and a card's own operators, and the communication library's buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moviegen.config import DiTConfig, Launch, Params, Settings
from moviegen.plan.flops import ADALN_VECTORS, matrix_count, parameter_count, position_count

FLOAT32 = 4  # bytes of a weight, of its gradient, and of each of AdamW's two moments, whatever the arithmetic's type
HALF = 2
PATCH_WIDTH = 64  # numbers of a token as it comes and goes: 16 channels of 2 x 2 latent pixels

FIRST, LAST, BACK, UPDATE = MOMENTS = (
    "in the first block", "at the last block", "back at the first block", "at the update",
)  # fmt: skip
PARTS = (
    "weights", "gradient sums", "optimizer", "average", "gradients", "reduce buffers", "weight casts",
    "gathered weights", "block inputs", "activations", "attention", "live block", "positions", "text", "ends",
)  # fmt: skip
STATE = PARTS[:4]  # what is held from step to step
GROUPS = {  # of the parts, for readers
    "state": STATE,
    "gradients": ("gradients", "reduce buffers"),
    "casts and gathers": ("weight casts", "gathered weights"),
    "kept activations": ("block inputs", "activations", "attention"),
    "live block": ("live block",),
    "text and ends": ("positions", "text", "ends"),
}


@dataclass(frozen=True)
class State:
    """Bytes that one rank holds from step to step, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Of all three."""
        return self.parameters + self.gradients + self.optimizer


@dataclass(frozen=True)
class Types:
    """Bytes of a number that a rank holds.

    Attributes:
        arithmetic: of the matrices that ZeRO 1 and 2 hold whole, and that ZeRO 3 gathers.
        moment: of AdamW's first.
        gradient: of the rank's part of the gradients.
    """

    arithmetic: int = FLOAT32
    moment: int = FLOAT32
    gradient: int = FLOAT32

    @classmethod
    def of(cls, settings: Settings, launch: Launch) -> Types:
        """Of a recipe; on CPU bfloat16 is how products round, and the arithmetic's numbers are float32."""
        arithmetic = HALF if launch.device == "Ascend" else FLOAT32
        held = (HALF if dtype == "bfloat16" else FLOAT32 for dtype in (settings.moment_dtype, settings.gradient_dtype))
        return cls(arithmetic, *held)


DEFAULT_TYPES = Types()


def state_bytes(
    config: DiTConfig, ranks: int, zero_stage: int, micro_batches: int, types: Types = DEFAULT_TYPES
) -> State:
    """Memory of weights, gradient sums and optimizer state on each rank, activations not counted.

    ZeRO 1 divides AdamW's two moments over the ranks, 2 the gradient sums too, 3 the matrices too. One micro-batch an
    update needs no sums. What is updated is float32. Where a whole weight is held, its updated part is held beside it,
    among the optimizer's; the whole is in the type of the arithmetic where it is a matrix and does not embed the time.
    Exact where the ranks divide the width; else each tensor is padded by less than a number a rank. Not held from step
    to step, and not counted: what is gathered and scattered, and the gradients of one micro-batch.
    """
    matrices = matrix_count(config)
    total = parameter_count(config) + position_count(config)
    parts = ranks if zero_stage else 1
    divided = matrices / parts if zero_stage == 3 else matrices
    beside = (total - matrices if zero_stage == 3 else total) / parts if parts > 1 else 0
    sums = types.gradient * total / parts if parts > 1 and zero_stage >= 2 else FLOAT32 * total
    halved = matrices - config.frequency_width * config.width - config.width**2 if parts > 1 and zero_stage < 3 else 0
    return State(
        parameters=round(FLOAT32 * (divided + total - matrices - halved) + types.arithmetic * halved),
        gradients=round(sums) if micro_batches > 1 else 0,
        optimizer=round((FLOAT32 + types.moment) * total / parts + FLOAT32 * beside),
    )


@dataclass(frozen=True)
class Memory:
    """Bytes on one card at the fullest moment of a step.

    Attributes:
        moment: when that is.
        parts: bytes by what they are for, in the order of PARTS; what is not there is 0.
        largest: the largest single tensor, in words and in bytes.
    """

    moment: str
    parts: Mapping[str, int]
    largest: tuple[str, int]

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())

    @property
    def state(self) -> int:
        """What is held from step to step."""
        return self.groups["state"]

    @property
    def groups(self) -> dict[str, int]:
        """Bytes of each of GROUPS."""
        return {group: sum(self.parts.get(part, 0) for part in parts) for group, parts in GROUPS.items()}


@dataclass(frozen=True)
class Host:
    """Bytes of a host's memory that all of its ranks take together.

    Attributes:
        start: while the network is built: each rank holds what it keeps, and one weight whole.
        checkpoint: while one is written.
    """

    start: int
    checkpoint: int


def start_bytes(config: DiTConfig, ranks: int, zero_stage: int, types: Types = DEFAULT_TYPES) -> int:
    """What a rank takes while it builds its part of the network: what it keeps, and the largest weight whole."""
    parts = ranks if zero_stage else 1
    state = state_bytes(config, ranks, zero_stage, 1, types)
    moments = (FLOAT32 + types.moment) * (parameter_count(config) + position_count(config)) / parts
    largest = FLOAT32 * max(ADALN_VECTORS * config.width**2, config.width * config.ffn_width)
    return round(state.parameters + state.optimizer - moments + largest)


def host_memory(params: Params, stage: int) -> Host:
    """The host's memory of a stage: while its ranks start, and while they write a checkpoint.

    At the start each rank holds its weights and their updated parts (`parallel.zero`), its average's part where one is
    kept on the host, and the largest weight, of which it takes what is its own. At a checkpoint each rank holds a copy
    of what it writes (`rank_checkpoint`), until that is written, and what it averages. What MindSpore keeps on the host
    of weights that are on a card is not counted, nor the one array that is on its way.
    """
    types = Types.of(params.recipes[stage].train.settings, params.launch_of(stage))
    launch, recipe, config = params.launch_of(stage), params.recipes[stage], params.dit_config(stage)
    total = FLOAT32 * (parameter_count(config) + position_count(config))
    zero_stage = recipe.train.settings.zero_stage
    parts = launch.worker_num if zero_stage else 1
    average = total // parts if recipe.train.ema else 0
    start = start_bytes(config, launch.worker_num, zero_stage, types) + average
    return Host(
        start=launch.local_worker_num * start,
        checkpoint=launch.local_worker_num
        * (rank_checkpoint(config, launch.worker_num, recipe.train.ema is not None) + average),
    )


def rank_checkpoint(config: DiTConfig, ranks: int, has_average: bool) -> int:
    """Bytes that a rank copies and writes of a checkpoint: its share of weights, both moments and the average.

    What is not divided the ranks share out, so it is the same at every ZeRO stage, but for less than a number a tensor.
    """
    return (3 + has_average) * FLOAT32 * (parameter_count(config) + position_count(config)) // ranks
