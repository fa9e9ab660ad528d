"""`python -m tests.bench.speed`: what `make bench` measured, from outputs/bench/bench.json into docs/speed.md.

It gets the table of times beside PyTorch, and the aims that are not reached.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from moviegen import config
from moviegen.runs import files
from tests.bench import compiling, dit, tae
from tests.marked import replaced

TIMED, MEASURED = ("dit", "bfloat16", "tae"), ("step-memory", "compiling", "reading")  # groups of bench.json
HEADER = ("", "ours", "PyTorch", "ours / PyTorch", "`torch.compile`", "ours / compiled")
EXPLANATION = "Below 1 is faster, or smaller, than PyTorch on the same machine in the same minutes."
Row = Mapping[str, Any]


def main() -> int:
    """Rewrites the two parts of the document."""
    root = config.project_root()
    report = files.read_json(root / "outputs" / "bench" / "bench.json", "run `make bench`")
    missing = [name for name in (*TIMED, *MEASURED) if name not in report]
    if missing:
        print(f"error: bench.json has no {', '.join(missing)}: run `make bench` without --only", file=sys.stderr)
        return 1
    document = root / "docs" / "speed.md"
    text = replaced(document.read_text(encoding="utf-8"), "bench", block(report))
    files.write_text(document, replaced(text, "missed", missed(report)))
    print(f"written: {document.relative_to(root)}")
    return 0


def block(report: Mapping[str, Any]) -> str:
    """Markdown: the table, a sentence on what is no comparison with PyTorch, and where and when it was measured."""
    timed = [row for name in TIMED for row in report[name]]
    lines = [HEADER, ["---"] * len(HEADER), *map(timed_line, by_task(timed)), *map(memory_line, report["step-memory"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{EXPLANATION} {others(report)}\n\n{provenance(report)}\n"


def by_task(timed: Iterable[Row]) -> list[dict[str, Row]]:
    """Peer's first word -> row, of each task in the order they came."""
    found: dict[str, dict[str, Row]] = {}
    for row in timed:
        found.setdefault(row["task"], {})[row["peer"].partition(",")[0].partition(":")[0]] = row
    return list(found.values())


def timed_line(peers: Mapping[str, Row]) -> list[str]:
    """One task's cells."""
    first = next(iter(peers.values()))
    eager, compiled = peers.get(dit.EAGER), peers.get(dit.COMPILED)
    return [first["task"], milliseconds(first["ours_ms"]), *cells(eager), *cells(compiled)]


def cells(row: Row | None) -> list[str]:
    """A peer's time, and the ratio to it."""
    if row is None or row["ratio"] is None:
        return ["-", "-"]
    return [milliseconds(row["reference_ms"]), f"**{row['ratio']:.2f}**"]


def milliseconds(value: float | None) -> str:
    """Two digits at least."""
    return "-" if value is None else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def memory_line(row: Row) -> list[str]:
    """Of the process of one step."""
    ours, reference = (f"{row[key]:.0f} MB" for key in ("ours_mb", "reference_mb"))
    return [f"memory, {row['task']}", ours, reference, f"**{row['ratio']:.2f}**", "-", "-"]


def missed(report: Mapping[str, Any]) -> str:
    """Markdown: a line for each aim that is not reached."""
    whole = [(name, row) for name in (*TIMED, *MEASURED) for row in report[name] if row.get("reached") == "no"]
    lines = [
        f"| {'memory, ' * (name == 'step-memory')}{row['task']} | {row['peer']} | {row['ratio']:.2f} | {row['aim']} |"
        for name, row in whole
    ]
    return "\n".join(["| | beside | ratio | aim |", "| --- | --- | --- | --- |", *lines, ""])


def others(report: Mapping[str, Any]) -> str:
    """What is measured against something else than PyTorch."""
    shares = [
        f"{100 * row['ratio']:.0f} % ({dtype})"
        for name, dtype in (("dit", "float32"), ("bfloat16", "bfloat16"))
        for row in report[name]
        if row["peer"].startswith(dit.PEAK)
    ]
    depth = report["compiling"][0]["ratio"]
    ratios = [row["ratio"] for row in report["reading"]]
    return (
        f"The step of {dit.LARGE} runs at {' and '.join(shares)} of this machine's fastest matrix product; compiling "
        f"{compiling.DEEP} layers takes {depth:.1f} times as long as {compiling.SHALLOW}; reading a training clip "
        f"{min(ratios):.1f} to {max(ratios):.1f} times as long as decoding it."
    )


def provenance(report: Mapping[str, Any]) -> str:
    """One line."""
    machine, versions = report["machine"], report["versions"]
    return (
        f"`make bench` on {report['finished'][:10]}, commit {report['commit'][:7]}: {machine['cpu']}, "
        f"{machine['cores']} cores, {report['operators']} operators; MindSpore {versions['mindspore']}, PyTorch "
        f"{versions['torch']}; medians of {report['repetitions']} calls in turns."
    )


def tasks() -> list[str]:
    """What the table's lines are named, in order."""
    transformer = [dit.named(task, shape, "float32") for task, shape in dit.AIMS]
    steps = [dit.named("train", dit.TINY, "float32"), *(str(case) for case in tae.CASES if case.task == "train")]
    return [
        *transformer,
        dit.named("train", dit.LARGE, "bfloat16"),
        *map(str, tae.CASES),
        *(f"memory, {step}" for step in steps),
    ]


if __name__ == "__main__":
    sys.exit(main())
