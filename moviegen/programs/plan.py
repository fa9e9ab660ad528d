"""`python -m moviegen plan`: parameters, arithmetic and memory of each stage, by counting."""

from __future__ import annotations

from argparse import Namespace

from moviegen.config import Params
from moviegen.plan import si, stage_cost


def main(params: Params, options: Namespace) -> None:
    """Prints the cost of the three stages; `options` has nothing for this verb."""
    del options
    print(
        f"{'scale':>6} {'stage':>6} {'parameters':>11} {'+ tables':>9} {'tokens':>8} {'FLOP/step':>10} {'GiB/rank':>9}"
    )
    for stage in sorted(params.stages):
        cost = stage_cost(params, stage)
        print(
            f"{cost.scale:>6} {cost.stage:>6} {si(cost.parameters):>11} {si(cost.positions):>9} {cost.tokens:>8,}"
            f" {si(cost.flops):>10} {cost.state.total / 2**30:>9.3g}"
        )
    print("GiB/rank: weights, gradients and optimizer state, all float32; activations come on top.")
