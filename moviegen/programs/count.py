"""`python -m moviegen count`: the parameters of the transformer itself, beside those of the formula.

Every size is built as it would be trained, but its parameters are never allocated: a shape is all that is counted of
them. `summary.json` holds for each size `counted` (without position tables), `positions` (theirs) and `formula`, which
is what `plan.parameter_count` says; where they differ the program fails.
"""

from __future__ import annotations

import argparse
import math

from mindspore.nn.utils import no_init_parameters

from moviegen import plan
from moviegen.config import SIZES, DiTConfig, Params
from moviegen.dit.model import DiT
from moviegen.runs.files import write_json
from moviegen.runs.ranks import recorded

PUBLISHED = ("1B", "5B", "30B")
POSITIONS = "pos_embedding_table_"


def sizes(params: Params) -> dict[str, DiTConfig]:
    """What is counted, by name: the published sizes, and the one that stage 3 of these parameters trains."""
    return {name: SIZES[name] for name in PUBLISHED} | {params.recipes[3].model.size: params.dit_config(3)}


def count(config: DiTConfig) -> dict[str, int]:
    """Parameters of the class, of its position tables, and by formula.

    Raises:
        ValueError: class and formula differ.
    """
    with no_init_parameters():
        shapes = {name: parameter.shape for name, parameter in DiT(config).parameters_and_names()}
    positions = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(POSITIONS))
    counted = {"counted": sum(map(math.prod, shapes.values())) - positions, "positions": positions}
    computed = {"counted": plan.parameter_count(config), "positions": plan.position_count(config)}
    if counted != computed:
        raise ValueError(f"the class has {counted} parameters, moviegen/plan/ computes {computed}: {config}")
    return counted | {"formula": computed["counted"]}


def main(params: Params, options: argparse.Namespace) -> None:
    """`count`."""
    del options
    with recorded(params, "count") as (run, _):
        write_json(run.folder / "summary.json", {name: count(config) for name, config in sizes(params).items()})
