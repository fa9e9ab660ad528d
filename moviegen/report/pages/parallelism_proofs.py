"""Of the parallelism page: what a CPU measured of what only large jobs need, and what only cards can tell."""

from __future__ import annotations

from typing import Any

from IPython.display import HTML

from moviegen.proofs import records
from moviegen.report.tables import table
from moviegen.report.wording import duration, shown

COMMAND = "make scale-proof"
# what only a card can tell -> what stands for it here
ONLY_ON_CARDS = {
    "Kernels of a card: FlashAttention, fused norms, bfloat16 convolutions": "The same networks with MindSpore's own "
    "operators, and the types of each graph in a card's form, which is compiled here and not run",
    "HCCL between cards and hosts": "The same collectives between processes of this machine, call by call and byte by "
    "byte",
    "Whether gathering a block's weights hides behind computing": "That no dependency of the graph forbids it",
    "The work space of a card's operators, and what its memory pool loses": "Tensors alive at each moment of a graph "
    "in a card's form, against what the plan counts",
    "What jit level O1 fuses": "Level O0's graphs; the rest by rule",
    "Seconds": "Published rows, to which the plan's speed is fitted, and how far off it is on rows left out",
}


def proven() -> HTML:
    """Of each topic what was measured, what was foretold, and where it must lie; and which were not measured."""
    found = {name: records.read(name) for name in records.TOPICS}
    tables = [_topic(name, record) for name, record in found.items() if record]
    if missing := [records.TOPICS[name] for name, record in found.items() if not record]:
        rows = [{"topic": title, "measured": f"not run yet: {COMMAND}"} for title in missing]
        tables.append(table(rows, f"What {COMMAND} measures").data)
    return HTML("".join(tables))


def only_on_cards() -> HTML:
    """What was not proven, and what was instead."""
    rows = [{"not run here": what, "what stands for it": instead} for what, instead in ONLY_ON_CARDS.items()]
    return table(rows, "What only cards can tell")


def _topic(name: str, record: dict[str, Any]) -> str:
    return table(_rows(record["proofs"]), f"{records.TOPICS[name]}: {_origin(name, record)}").data


def _origin(name: str, record: dict[str, Any]) -> str:
    """How many hold, when and where they were measured, and whether the code is still what was measured."""
    held, count = sum(proof["holds"] for proof in record["proofs"]), len(record["proofs"])
    machine, day = record["machine"], record["finished"].partition("T")[0]
    origin = f"{held} of {count} hold, measured in {duration(record['seconds'])} on {day}, {machine['cpu']}"
    return origin if record["code"] == records.code(name) else f"{origin}; the code has changed since"


def _rows(proofs: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A claim stands in the first row of those that are about it."""
    rows, said = [], None
    for proof in proofs:
        rows.append(
            {
                "claim": proof["claim"] if proof["claim"] != said else "",
                "measured here": proof["quantity"],
                "measured": _written(proof["measured"], proof["unit"]),
                "foretold": _written(proof["predicted"], proof["unit"]),
                "must be": f"{_written(proof['lowest'])} to {_written(proof['highest'])}",
                "verdict": "holds" if proof["holds"] else "does not hold",
            }
        )
        said = proof["claim"]
    return rows


def _written(value: float | None, unit: str = "") -> str:
    if value is None or value == 0:
        return "-" if value is None else f"0 {unit}".rstrip()
    number = f"{value:,.0f}" if abs(value) >= 1000 else shown(value)
    return f"{number} {unit}".rstrip()
