"""What a recipe costs, by counting: parameters, arithmetic, memory and traffic. Nothing here is measured."""

from moviegen.plan.cost import Cost, si, stage_cost
from moviegen.plan.flops import (
    Flops,
    attention_flops,
    block_flops,
    dit_block,
    dit_forward,
    dit_training,
    matrix_count,
    parameter_count,
    position_count,
    step_flops,
    tae_decode,
    tae_encode,
    tae_parameter_count,
    tae_training,
)
from moviegen.plan.memory import State, state_bytes
from moviegen.plan.traffic import gathered_traffic, ulysses_traffic

__all__ = [
    "Cost", "Flops", "State", "attention_flops", "block_flops", "dit_block", "dit_forward", "dit_training",
    "gathered_traffic", "matrix_count", "parameter_count", "position_count", "si", "stage_cost", "state_bytes",
    "step_flops", "tae_decode", "tae_encode", "tae_parameter_count", "tae_training", "ulysses_traffic",
]  # fmt: skip
