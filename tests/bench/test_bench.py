"""What can be wrong in a benchmark without a clock: its rows, docs/speed.md, and what a PyTorch process is told."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from moviegen import config
from moviegen.config import DiTConfig
from tests.bench import __main__ as bench
from tests.bench import compiling, dit, dit_ours, profile, reading, rows, serving, speed, tae
from tests.bench.workers import Worker, WorkFailed, take_turns
from tests.conftest import Bar
from tests.marked import part

ROOT = Path(__file__).parents[2]
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
PYTORCH = ("tests.bench.pytorch", "tests.bench.dit_pytorch")


def build(fails=False):
    """What the worker of these tests serves."""
    if fails:
        raise ValueError("no such work")
    return lambda: None


def report():
    """A bench.json with invented numbers."""
    compared = [
        rows.compared(dit.named(task, shape, "float32"), peer, [2.0, 3.0, 4.0], [4.0, 4.0, 4.0], aim)
        for (task, shape), aims in dit.AIMS.items()
        for peer, aim in aims.items()
    ]
    work, times = dit.large(), {"ours": [1000.0] * 3, dit.PEAK: [500.0] * 3}
    shares = {name: dit.share_of_peak(dit.named("train", dit.LARGE, name), work, name, times) for name in dit.SHARES}
    failed = rows.without_peer(dit.named("train", dit.LARGE, "bfloat16"), dit.COMPILED, [1.0], "no compiler", 1.0)
    clip = rows.compared("reading", "PyAV", [2.0], [1.0])
    return {
        "commit": "0123456789abcdef",
        "machine": {"cpu": "A processor", "cores": 2},
        "versions": {"mindspore": "2.10.0", "torch": "2.13.0+cpu"},
        "operators": "compiled",
        "repetitions": 7,
        "finished": "2026-11-26T12:00:00+00:00",
        "dit": [*compared, shares["float32"]],
        "bfloat16": [failed, shares["bfloat16"]],
        "tae": [rows.compared(str(case), "PyTorch, contiguous", [3.0], [4.0]) for case in tae.CASES],
        "step-memory": [
            {"task": name, "peer": "PyTorch", "ours_mb": 900.0, "reference_mb": 1000.0, "ratio": 0.9}
            for name in (dit.named("train", dit.TINY, "float32"), *map(str, tae.CASES[:2]))
        ],
        "compiling": [{"ratio": 1.25}],
        "reading": [clip, clip],
    }


def lines_of(block):
    """Cells of the table's lines below its header."""
    table = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
    assert table[0][1:] == list(speed.HEADER[1:]) or table[0] == list(speed.HEADER[1:])
    return table[2:]


@pytest.mark.parametrize("block", [speed.block(report()), part(SPEED, "bench")])
def test_the_table_has_a_line_for_each_task_and_says_where_it_was_measured(block):
    table = lines_of(block)
    assert [cells[0] for cells in table] == speed.tasks()
    number, ratio = r"(\d+(\.\d)? (ms|MB)|-)", r"(\*\*\d+\.\d\d\*\*|-)"
    for _, ours, *peers in table:
        assert re.fullmatch(number, ours)
        assert all(re.fullmatch(pattern, cell) for pattern, cell in zip([number, ratio] * 2, peers, strict=True))
    assert speed.EXPLANATION in block
    assert re.search(r"`make bench` on \d{4}-\d\d-\d\d, commit \w{7}: .+, \d+ cores, .+ operators; MindSpore \d", block)


def test_ratios_and_failures_come_into_their_columns():
    table = {cells[0]: cells[1:] for cells in lines_of(speed.block(report()))}
    assert table[dit.named("train", dit.TINY, "float32")] == ["3.0 ms", "4.0 ms", "**0.75**", "4.0 ms", "**0.75**"]
    assert table[dit.named("forward", dit.TINY, "float32")] == ["3.0 ms", "4.0 ms", "**0.75**", "-", "-"]
    assert table[dit.named("train", dit.LARGE, "bfloat16")] == ["1.0 ms", "-", "-", "-", "-"]


def test_aims_that_are_not_reached_are_listed_and_no_others():
    rows_of = {"dit": [("slow", 0.96, "no"), ("fast", 0.5, "yes")], "step-memory": [("large", 2.0, "no")]}
    rows_of["reading"] = [("unread", None, "not measured")]
    keys = ("task", "ratio", "reached")
    found = {name: [] for name in (*speed.TIMED, *speed.MEASURED)}
    for name, rows_ in rows_of.items():
        found[name] = [dict(zip(keys, row, strict=True), peer="PyTorch", aim="at most 0.90") for row in rows_]
    lines = ["| slow | PyTorch | 0.96 | at most 0.90 |", "| memory, large | PyTorch | 2.00 | at most 0.90 |"]
    assert speed.missed(found).splitlines()[2:] == lines
    assert part(SPEED, "missed").splitlines()[:2] == speed.missed(found).splitlines()[:2]


def test_a_ratio_is_judged_by_its_aim():
    assert rows.judged(0.9, at_most=0.9)["reached"] == "yes"
    assert rows.judged(0.91, at_most=0.9)["reached"] == "no"
    assert rows.judged(0.75, at_least=0.75)["reached"] == "yes"
    assert rows.judged(0.74, at_least=0.75)["reached"] == "no"
    assert rows.judged(None, at_most=0.9)["reached"] == "not measured"


def test_calls_are_compared_with_their_neighbours():
    """A machine that becomes half as fast in between changes no ratio."""
    found = rows.compared("work", "peer", [1, 1, 2, 2], [2, 2, 4, 4])
    assert found["ratio"] == 0.5
    assert "work" in rows.table([found]).splitlines()[1]


def test_the_share_of_the_peak_is_arithmetic_a_second():
    """A step of F FLOPs in 1 s beside a product of P FLOPs in 0.5 s: F / 2P."""
    work = dit.large()
    row = dit.share_of_peak("step", work, "float32", {"ours": [1000.0], dit.PEAK: [500.0]})
    assert row["ratio"] == pytest.approx(dit.step_flops(work) / (4 * dit.SQUARE**3))


@pytest.mark.parametrize("shape", dit.SHAPES)
def test_each_shape_has_a_length_for_each_encoder_of_its_network(shape):
    work = dit.SHAPES[shape]()
    assert len(work["lengths"]) == len(work["config"]["text_widths"]) == 3
    assert all(work["config"]["text_widths"])


def test_our_transformer_takes_what_is_measured():
    dit_ours.build("forward", **dit.tiny())()  # raises where they do not fit each other


def test_the_large_step_has_its_arithmetic():
    """Linear layers and attention of 8 blocks, three times the forward pass, but for the ends, which are below 1 %."""
    tokens, text, width, ffn = 2048, 64, 384, 1024
    block = 12 * tokens * width**2 + 4 * text * width**2 + 6 * tokens * width * ffn
    block += 4 * tokens * (tokens + text) * width
    work = dit.large()
    DiTConfig.model_validate(work["config"])
    assert 1 <= dit.step_flops(work) / (3 * 8 * block) < 1.01


def test_a_reports_compilation_is_that_of_the_newest_run_of_each_program(tmp_path):
    def run(name, age, *lines):
        path = tmp_path / name / "metrics.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.utime(path, (1e9 - age, 1e9 - age))

    first, second = ({"kind": "validation", "seconds": seconds} for seconds in (12.0, 2.0))
    run("stage1-0a", 9, {"kind": "compile", "seconds": 1000.0})
    run("stage1-0b", 1, {"kind": "compile", "seconds": 7.0}, {"kind": "train", "seconds": 1.0})
    run("stage2-0c", 2, first, {"kind": "compile", "seconds": 11.0}, second)
    assert compiling.report_seconds(tmp_path) == 7 + 11 + 10
    assert compiling.report_seconds(tmp_path / "none") is None


def test_a_bare_reading_gives_the_frames_that_ours_resizes(tmp_path):
    for path in reading.make_files(tmp_path).values():
        info = reading.videos.probe(path)
        numbers = reading.pixels.clip_indices(info.frames, reading.FRAMES)
        ours = reading.videos.read_frames(path, numbers)
        bare = reading.by_pyav(path, numbers)
        assert bare.shape == ours.shape
        assert abs(bare.astype(int) - ours).mean() < 1


def test_pytorch_is_told_nothing_of_moviegen():
    """Importing it sets the instruction set that MindSpore's oneDNN needs, and PyTorch's reads the same variable."""

    def imports(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    seen, waiting = set(), list(PYTORCH)
    while waiting:
        name = waiting.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name not in seen and path.is_file():
            waiting += imports(path)
        seen.add(name)
    assert "tests.bench.serving" in seen
    assert not [name for name in seen if name.startswith("moviegen")]


def test_a_worker_goes_on_after_work_that_failed():
    with Worker("tests.bench.test_bench", is_ours=False) as worker:
        with pytest.raises(WorkFailed, match="ValueError: no such work"):
            worker.prepare("broken", fails=True)
        assert worker.prepare("whole") >= 0
        assert worker.peak_memory() > 1e6
        assert [len(times) for times in take_turns([(worker, "whole")] * 2, 3, Bar())] == [3, 3]


def test_a_profile_names_the_function_of_a_compiled_operator():
    graph = """
  %1 = Custom(%a, %b) primitive_attrs: {func_name: "/x/operators-0.so:linear", autodiff: Bool(0)}
      # Fullname with scope: (Default/Custom-op0)
  %2 = Custom(%a, %b, %c) primitive_attrs: {func_name: "/x/operators-0.so:linear_gradient"}
      # Fullname with scope: (Gradients/Custom-op0)
"""
    functions = profile.functions(graph)
    assert functions == {"Default/Custom-op0": "linear", "Gradients/Custom-op0": "linear_gradient"}
    table = [("Custom", "Default/Custom-op0", 5.0), ("Custom", "Gradients/Custom-op0", 10.0), ("Mul", "Mul-op0", 20.0)]
    keys = ("op_type", "full_op_name", "op_total_time(ms)", "op_occurrences")
    rows = [dict(zip(keys, (*row, profile.STEPS), strict=True)) for row in table]
    assert profile.by_kind(rows, functions) == {"Mul": [4, 1], "linear_gradient": [2, 1], "linear": [1, 1]}
    section = profile.section("step", {"compiled": {"step_ms": 9.0, "operators": profile.by_kind(rows, functions)}})
    assert "linear_gradient 2.0 (1)" in section


def test_every_group_has_a_title():
    assert bench.MEASUREMENTS.keys() == bench.TITLES.keys()
    assert {*speed.TIMED, *speed.MEASURED} <= bench.MEASUREMENTS.keys()
    assert config.load("tiny").dit_config(2).num_layers == dit.tiny()["config"]["num_layers"]
    assert "torch" not in sys.modules


if __name__ == "__main__":
    serving.serve(build)
