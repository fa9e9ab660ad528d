"""What a recipe costs, by counting: parameters, arithmetic, memory and traffic. Nothing here is measured."""

from moviegen.plan.cost import Cost, si, stage_cost
from moviegen.plan.flops import attention_flops, block_flops, matrix_count, parameter_count, position_count, step_flops
from moviegen.plan.memory import State, state_bytes
from moviegen.plan.traffic import gathered_traffic, ulysses_traffic

__all__ = [
    "Cost", "State", "attention_flops", "block_flops", "gathered_traffic", "matrix_count", "parameter_count",
    "position_count", "si", "stage_cost", "state_bytes", "step_flops", "ulysses_traffic",
]  # fmt: skip
