"""`python -m tests.bench.profile`: where a training step's time goes, by operator, in both forms, into docs/speed.md.

MindSpore's profiler records each operator that it launches; of a compiled one it says `Custom`, so which function that
is comes from the graph that MindSpore writes where it is asked to. Work between operators (launching, waiting) is what
the step takes beside their sum.
"""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moviegen import config, device
from moviegen.device import compiled
from moviegen.runs import files
from tests.bench import dit, tae
from tests.marked import replaced

STEPS = 5
SMALL = 0.02  # of a step: below it operators are added up
SHAPES = {
    dit.named("train", dit.TINY, "float32"): ("tests.bench.dit_ours", {"task": "train"} | dit.tiny()),
    str(tae.CASES[0]): ("tests.bench.ours", tae.work(tae.CASES[0])),
}


def main() -> None:
    """Measures both steps in both forms, each in a process of its own, and writes the table."""
    if sys.argv[1:]:
        print(json.dumps(child(sys.argv[1], Path(sys.argv[2]))))
        return
    found = {name: {form: measure(name, form) for form in (compiled.MINDSPORE, compiled.COMPILED)} for name in SHAPES}
    document = config.project_root() / "docs" / "speed.md"
    text = "\n".join(section(name, forms) for name, forms in found.items())
    files.write_text(document, replaced(document.read_text(encoding="utf-8"), "profile", text))
    print(f"written: {document.relative_to(config.project_root())}")


def measure(name: str, form: str) -> dict[str, Any]:
    """What `child` finds; it runs where no other graph was compiled."""
    with tempfile.TemporaryDirectory() as folder:
        dumps = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": folder, "MS_DEV_DUMP_IR_PASSES": "execute"}
        kept = {key: value for key, value in os.environ.items() if key not in device.set_here}
        command = (sys.executable, "-m", "tests.bench.profile", name, folder)
        environment = kept | dumps | {compiled.CHOICE: form}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str, folder: Path) -> dict[str, Any]:
    """Milliseconds a step takes without the profiler, and of each kind of operator with it."""
    from importlib import import_module

    from moviegen.device.profiler import StepTrace

    module, arguments = SHAPES[name]
    device.start(0)
    step = import_module(module).build(**arguments)
    step()
    step()
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - started))
    trace = StepTrace(folder / "trace", 1, STEPS, 0)
    for number in range(1, STEPS + 1):
        with trace.step(number):
            step()
    tables = sorted((folder / "trace").glob("*/FRAMEWORK/cpu_op_detail_info_*.csv"))
    graphs = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*[0-9]_execute_*.ir")))
    rows = [row for path in tables for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    return {"step_ms": statistics.median(times), "operators": by_kind(rows, functions(graphs))}


def functions(graphs: str) -> dict[str, str]:
    """An operator's name in the graph -> the function of the library that it calls."""
    call = re.compile(r'func_name: "[^"]*:(\w+)".*?Fullname with scope: \((.*?)\)', re.DOTALL)
    return {name: function for function, name in call.findall(graphs)}


def by_kind(rows: Iterable[Mapping[str, str]], functions: Mapping[str, str]) -> dict[str, list[float]]:
    """Kind -> milliseconds and launches a step, the longest first."""
    times, launches = Counter[str](), Counter[str]()
    for row in rows:
        kind = functions.get(row["full_op_name"], row["op_type"]) if row["op_type"] == "Custom" else row["op_type"]
        times[kind] += float(row["op_total_time(ms)"]) / STEPS
        launches[kind] += int(row["op_occurrences"]) / STEPS
    return {kind: [milliseconds, launches[kind]] for kind, milliseconds in times.most_common()}


def section(name: str, forms: Mapping[str, Mapping[str, Any]]) -> str:
    """One step's tables, a line of kinds for each form."""
    lines = [f"### {name}", ""]
    for form, found in forms.items():
        step, operators = found["step_ms"], found["operators"]
        total, count = (sum(values) for values in zip(*operators.values(), strict=True))
        large = {kind: one for kind, one in operators.items() if one[0] >= SMALL * total}
        rest = total - sum(one[0] for one in large.values())
        shown = [f"{kind} {one[0]:.1f} ({one[1]:.0f})" for kind, one in large.items()]
        lines += [
            f"**{form}**: a step takes {step:.0f} ms; {count:.0f} operators take {total:.0f} ms under the profiler:",
            ", ".join([*shown, f"{len(operators) - len(large)} other kinds {rest:.1f}"]) + ".",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
