"""What a recipe costs: parameters, arithmetic, memory and traffic by counting, seconds by what others measured."""

from moviegen.plan.cards import PUBLISHED_CARD, Card, find_card, read_cards
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
from moviegen.plan.memory import State, Types, state_bytes
from moviegen.plan.scaling import Point, strong_scaling, weak_scaling, with_cards
from moviegen.plan.storage import Caches, CheckpointBytes, Reading, checkpoint_bytes, data_caches, training_reads
from moviegen.plan.time import Speed, Work, micro_batch_seconds, stage_work, update_seconds
from moviegen.plan.traffic import Exchange, gathered_traffic, stage_traffic, ulysses_traffic
from moviegen.plan.validate import Validation, measured, validate, validate_newest
from moviegen.plan.verdict import Verdict, sampling_verdict, stage_verdict, tae_verdict

__all__ = [
    "PUBLISHED_CARD", "Caches", "Card", "CheckpointBytes", "Cost", "Exchange", "Flops", "Point", "Reading", "Speed",
    "State", "Types", "Validation", "Verdict", "Work", "attention_flops", "block_flops", "checkpoint_bytes",
    "data_caches", "dit_block", "dit_forward", "dit_training", "find_card", "gathered_traffic", "matrix_count",
    "measured", "micro_batch_seconds", "parameter_count", "position_count", "read_cards", "sampling_verdict", "si",
    "stage_cost", "stage_traffic", "stage_verdict", "stage_work", "state_bytes", "step_flops", "strong_scaling",
    "tae_decode", "tae_encode", "tae_parameter_count", "tae_training", "tae_verdict", "training_reads",
    "ulysses_traffic", "update_seconds", "validate", "validate_newest", "weak_scaling", "with_cards",
]  # fmt: skip
