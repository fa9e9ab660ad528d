"""What a rank holds from step to step, by counting."""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import DiTConfig
from moviegen.plan.flops import matrix_count, parameter_count, position_count

FLOAT32 = 4  # bytes of a weight, of its gradient, and of each of AdamW's two moments, whatever the arithmetic's type


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


def state_bytes(config: DiTConfig, ranks: int, zero_stage: int, micro_batches: int) -> State:
    """Memory of weights, gradient sums and optimizer state on each rank, activations not counted.

    All are float32; bfloat16 is the type of the arithmetic, and casts live no longer than activations. ZeRO 1 divides
    AdamW's two moments over the ranks, 2 the gradient sums too, 3 the matrices too. One micro-batch an update needs no
    sums. Where a whole weight is held, its updated part is held beside it, among the optimizer's. Exact where the ranks
    divide the width; else each tensor is padded by less than a number a rank. Not held from step to step, and not
    counted: what is gathered and scattered, and the gradients of one micro-batch.
    """
    matrices = matrix_count(config)
    total = parameter_count(config) + position_count(config)
    parts = ranks if zero_stage else 1
    divided = matrices / parts if zero_stage == 3 else matrices
    beside = (total - matrices if zero_stage == 3 else total) / parts if parts > 1 else 0
    sums = total / parts if zero_stage >= 2 else total
    return State(
        parameters=round(FLOAT32 * (divided + total - matrices)),
        gradients=round(FLOAT32 * sums) if micro_batches > 1 else 0,
        optimizer=round(FLOAT32 * (2 * total / parts + beside)),
    )
